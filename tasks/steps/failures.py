"""What may go wrong in a run and says in one line why: everything else is a bug."""

from storage.documents import DamagedError
from storage.stores import StoreError
from tasks.parallel import ClusterError, PartitionError

FAILURES = (StoreError, DamagedError, PartitionError, ClusterError)
