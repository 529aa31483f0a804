"""What may go wrong in a run and says in one line why: everything else is a bug."""

from storage.documents import DamagedError
from storage.stores import StoreError
from tasks.cluster.parallel import PartitionError
from tasks.cluster.rejoining import ClusterError


class ServerError(Exception):
    """Prefect's server is away; one line says where it should be."""


FAILURES = (StoreError, DamagedError, PartitionError, ClusterError, ServerError)
