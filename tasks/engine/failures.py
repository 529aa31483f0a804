"""The errors that a run expects and reports in one line; any other error is a bug."""

from storage.documents import DamagedError
from storage.stores import StoreError
from tasks.cluster.parallel import PartitionError
from tasks.cluster.rejoining import ClusterError


class ServerError(Exception):
    """Prefect's server does not answer; the text is one line with its address."""


FAILURES = (StoreError, DamagedError, PartitionError, ClusterError, ServerError)


def caused_by_stop(error: BaseException) -> bool:
    """Return whether a stop from the keyboard is an error itself or behind it: libraries wrap what interrupts them."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, KeyboardInterrupt) or _printed(one):
            return True
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
    return False


def _printed(error: BaseException) -> bool:
    """Return whether an error only prints a stop, as pydantic's serialiser does, which drops what caused it."""
    return type(error).__name__ == "PydanticSerializationError" and KeyboardInterrupt.__name__ in str(error)
