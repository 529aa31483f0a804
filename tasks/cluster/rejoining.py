"""A scheduler that goes away under a run: Dask's client looks for it at the same address, for as long as it was told.

What was submitted is lost with the scheduler. The run asks again for what has no marker, once a worker is back.
"""

import time
from concurrent.futures import CancelledError
from typing import Any

PATIENCE = 30  # seconds for which a client looks for its scheduler, at the start and after a loss
LOOK = 0.1  # seconds between two looks


class ClusterError(Exception):
    """A cluster cannot be used; one line says why."""


class LostError(ConnectionError):
    """A partition was lost with the scheduler that knew of it: a fault that may pass."""


def rejoin(client: Any) -> bool:  # Any: distributed has no types
    """Return once the client has its scheduler, and whether that went away before.

    Raises
    ------
    ClusterError : the scheduler did not come back
    """
    if client.status == "running":
        return False
    while client.status == "connecting":  # ends: the client closes itself after PATIENCE
        time.sleep(LOOK)
    if client.status != "running":
        raise ClusterError(f"the scheduler was lost and did not come back within {PATIENCE} s; start it and run again")
    return True


def fetched(future: Any) -> Any:  # Any: distributed has no types
    """Return the result of a future that has ended.

    Raises
    ------
    Exception : what the partition raised
    LostError : its scheduler went away before it ended, or before its result was here
    """
    if future.status == "error":
        raise future.exception()
    if future.status == "finished":
        try:
            return future.result()
        except (OSError, CancelledError) as error:
            raise LostError(f"its result is lost: {error}") from error
    raise LostError(f"its task was {future.status}, its scheduler is gone")
