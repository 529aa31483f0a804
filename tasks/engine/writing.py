"""One partition of several stages, whose results were made together, written."""

from collections.abc import Callable, Sequence

from storage.partitions import Partition
from storage.stages import Stage
from storage.together import together


def write_each(stages: Sequence[Stage], number: int, write: Callable[[int, Partition], None]) -> None:
    """Write partition `number` of stages of one store; at once where the store is not local.

    Parameters
    ----------
    write : writes the results of the stage with an index
    """

    def write_one(index: int) -> None:
        with stages[index].partition(number) as part:
            write(index, part)

    together(stages[0].store, write_one, range(len(stages)))
