"""The errors that a run expects and reports in one line; any other error is a bug."""

from storage.documents import DamagedError
from storage.stores import StoreError
from tasks.cluster.parallel import PartitionError
from tasks.cluster.rejoining import ClusterError


class ServerError(Exception):
    """Prefect's server does not answer; the text is one line with its address."""


FAILURES = (StoreError, DamagedError, PartitionError, ClusterError, ServerError)
