"""Records of runs: their stages, code, machine and outcome."""

import os
import platform
import socket
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from configs.load import config_text
from configs.schema import Config
from configs.secrets import without_passwords
from storage.processes import process_identity
from storage.runs import RunRecord, close_record, records, write_record
from storage.specs import StageSpec
from storage.stores import Store, StoreError
from tasks.cluster.versions import code_facts
from tasks.engine.failures import caused_by_stop
from tasks.engine.journal import Journal


def record_reuse(store: Store, config: Config, stages: Sequence[StageSpec]) -> None:
    """Record a run whose stages were all complete, unless its last record is the same; gc then keeps its stages."""
    known = records(store, config.name)
    same = bool(known) and [stage["path"] for stage in known[-1].stages] == [spec.path for spec in stages]
    if not same or _placeless(known[-1].document.get("config_text", "")) != _placeless(config_text(config)):
        close_record(store, _begin(store, config, stages), "done")


def _placeless(text: str) -> list[str]:
    """Return the lines of a config's text without the store, which may have been moved."""
    return [line for line in text.splitlines() if not line.startswith("store:")]


@contextmanager
def recorded(
    store: Store, config: Config, stages: Sequence[StageSpec], reused: frozenset[str] = frozenset()
) -> Iterator[Journal]:
    """Write the run's record before the block and its outcome after it; yield the journal of the run.

    Parameters
    ----------
    reused : paths of the stages that are complete before the run
    """
    record = _begin(store, config, stages)
    journal = Journal(store, record.name, record.time)
    journal.note(f"run {record.name}: {len(stages)} stages, {len(reused)} of them complete before")
    try:
        yield journal
    except BaseException as error:
        stopped = caused_by_stop(error)
        journal.note("interrupted" if stopped else "".join(traceback.format_exception(error)))
        journal.write()
        with suppress(OSError, StoreError):  # such as a full disk, which must not hide the error of the run
            if stopped:
                close_record(store, record, "interrupted")
            else:
                close_record(store, record, "failed", error=without_passwords(" ".join(str(error).split())))
        raise
    journal.note("done")
    journal.write()
    close_record(store, record, "done", timings=journal.timings(spec for spec in stages if spec.path not in reused))


def _begin(store: Store, config: Config, stages: Sequence[StageSpec]) -> RunRecord:
    """Write the record of a run that begins."""
    facts = {
        "config_text": config_text(config),  # in the order of the file, which decides on titles and on what is shown
        "code": code_facts(),
        "machine": {
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "pid": os.getpid(),
        },
        "process": process_identity(os.getpid()),
    }
    return write_record(store, config.name, config.model_dump(mode="json"), list(stages), facts)
