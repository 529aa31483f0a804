"""A scheduler that disappears during a run: Dask's client looks for it at the same address for `PATIENCE` seconds.

Submitted work is lost with the scheduler. Once a worker is back, the run submits the partitions without a record.
"""

import time
from concurrent.futures import CancelledError
from typing import Any

PATIENCE = 30  # seconds for which a client looks for its scheduler, at the start and after a loss
LOOK = 0.1  # seconds between two looks


class ClusterError(Exception):
    """A cluster cannot be used; the text is one line."""


class LostError(ConnectionError):
    """A partition was lost with its scheduler: a temporary fault."""


def rejoin(client: Any) -> bool:  # Any: distributed has no types
    """Wait until the client has its scheduler, and return whether it was lost before.

    Raises
    ------
    ClusterError : the scheduler did not come back
    """
    if client.status == "running":
        return False
    while client.status == "connecting":  # ends: the client closes itself after PATIENCE
        time.sleep(LOOK)
    if client.status != "running":
        raise ClusterError(
            f"cluster: expected the lost scheduler back within {PATIENCE} s, found none; start it and run again"
        )
    return True


def fetched(future: Any) -> Any:  # Any: distributed has no types
    """Return the result of a future that has ended.

    Raises
    ------
    Exception : what the partition raised
    LostError : its scheduler was lost before the partition ended or its result arrived
    """
    if future.status == "error":
        raise future.exception()
    if future.status == "finished":
        try:
            return future.result()
        except (OSError, CancelledError) as error:
            raise LostError(f"expected the result of a partition, found its scheduler lost: {error}") from error
    raise LostError(f"expected a finished task, found it {future.status} and its scheduler lost")
