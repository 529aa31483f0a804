"""Records of runs: their stages, code, machine and outcome."""

import os
import platform
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from configs.load import config_text
from configs.schema import Config
from storage.runs import RunRecord, close_record, records, write_record
from storage.specs import StageSpec
from storage.stores import Store, StoreError
from tasks.cluster.versions import code_facts
from tasks.engine.failures import caused_by_stop


def record_reuse(store: Store, config: Config, stages: Sequence[StageSpec]) -> None:
    """Record a run whose stages were all complete, unless its last record is the same; gc then keeps its stages."""
    known = records(store, config.name)
    same = bool(known) and [stage["path"] for stage in known[-1].stages] == [spec.path for spec in stages]
    if not same or known[-1].document.get("config_text") != config_text(config):
        close_record(store, _begin(store, config, stages), "done")


@contextmanager
def recorded(store: Store, config: Config, stages: Sequence[StageSpec]) -> Iterator[None]:
    """Write the run's record before the block and its outcome after it."""
    record = _begin(store, config, stages)
    try:
        yield
    except BaseException as error:
        with suppress(OSError, StoreError):  # such as a full disk, which must not hide the error of the run
            if caused_by_stop(error):
                close_record(store, record, "interrupted")
            else:
                close_record(store, record, "failed", error=" ".join(str(error).split()))
        raise
    close_record(store, record, "done")


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
    }
    return write_record(store, config.name, config.model_dump(mode="json"), list(stages), facts)
