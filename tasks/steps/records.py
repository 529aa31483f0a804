"""Run records in steps: what a run was asked, with which code and machine, and how it ended."""

import os
import platform
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from configs.schema import Config
from storage.runs import close_record, write_record
from storage.specs import StageSpec
from storage.stores import open_store
from tasks.parallel import code_facts


@contextmanager
def recorded(config: Config, stages: Sequence[StageSpec]) -> Iterator[None]:
    """Write the run's record before the block and its outcome after it."""
    store = open_store(config.store, create=True)
    facts = {
        "code": code_facts(),
        "machine": {
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "pid": os.getpid(),
        },
    }
    record = write_record(store, config.name, config.model_dump(mode="json"), list(stages), facts)
    try:
        yield
    except KeyboardInterrupt:
        close_record(store, record, "interrupted")
        raise
    except BaseException as error:
        close_record(store, record, "failed", error=" ".join(str(error).split()))
        raise
    close_record(store, record, "done")
