"""Transfer of weights from the training thread to the disk: blocks of rows, and one thread that writes them.

After each step the training thread only copies the weights into a block that is already allocated. It waits while all
blocks are in use, and this time is counted.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from storage.checksums import Bytes
from storage.updates.parameters import Parameter, row_bytes

BLOCK_BYTES = 8 * 2**20
MOST_ROWS = 64  # largest number of rows in a block
BLOCKS = 4  # one is filled, one is written, one is kept for its last row, one is between them

Process = Callable[[Bytes, Bytes], None]  # rows (n, row bytes) and the row before them (row bytes,)


class StagedRows:
    """A queue that passes the weights after each row to `process` in another thread.

    Holds BLOCKS blocks of 8 MB or of a row, and one further row.

    Parameters
    ----------
    parameters : the parameters of a row
    places : module and attribute of each parameter
    steps : largest number of rows
    process : called in order, one call at a time
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        places: Sequence[tuple[nn.Module, str]],
        steps: int,
        process: Process,
    ) -> None:
        self.waited_seconds = 0.0
        self._places, self._process = places, process
        width = row_bytes(parameters)
        rows = max(1, min(MOST_ROWS, BLOCK_BYTES // max(1, width), -(-steps // BLOCKS)))
        self._cuda = _gpus(places)
        self._free: queue.SimpleQueue[_Block] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[_Block, int] | None] = queue.SimpleQueue()
        for _ in range(BLOCKS):
            self._free.put(_Block(parameters, rows, width, pinned=bool(self._cuda)))
        start = _Block(parameters, 1, width, pinned=bool(self._cuda))
        self._copy(start.targets[0])
        self._failures: list[BaseException] = []
        self._block: _Block | None = None
        self._filled = 0
        self._thread = threading.Thread(
            target=_work, args=(self._full, self._free, start, process, self._failures), daemon=True
        )
        self._thread.start()

    def push(self) -> None:
        """Append the present weights as a row."""
        if self._block is None:
            started = time.perf_counter()
            self._block = self._free.get()
            self.waited_seconds += time.perf_counter() - started
        self._copy(self._block.targets[self._filled])
        self._filled += 1
        if self._filled == len(self._block.rows):
            self._hand_over()

    def check(self) -> None:
        """Raise the failure of the other thread, if any."""
        if self._failures:
            raise self._failures[0]

    def close(self) -> None:
        """Wait until every row is processed; raise the failure of the other thread, if any."""
        self._hand_over()
        started = time.perf_counter()
        self._full.put(None)
        self._thread.join()
        self.waited_seconds += time.perf_counter() - started
        self.check()

    def abandon(self) -> None:
        """Let the other thread end; blocks that it has not begun are not written."""
        self._failures.append(RuntimeError("the recording was abandoned"))
        self._full.put(None)

    def join(self) -> None:
        """Wait until the other thread ends."""
        self._thread.join()

    def _hand_over(self) -> None:
        """Pass the filled rows of the block, if any, to the other thread."""
        if self._block is not None:
            self._full.put((self._block, self._filled))
        self._block, self._filled = None, 0

    def _copy(self, targets: list[Tensor]) -> None:
        """Copy the parameters into a row."""
        _copy(self._places, targets, self._cuda)


class _Block:
    """Memory for some rows, with views as bytes and as tensors."""

    def __init__(self, parameters: Sequence[Parameter], rows: int, width: int, *, pinned: bool) -> None:
        memory = torch.zeros((rows, width), dtype=torch.uint8, pin_memory=pinned)
        self.rows: Bytes = memory.numpy()
        self.targets: list[list[Tensor]] = [[] for _ in range(rows)]
        for parameter in parameters:
            part = memory[:, parameter.offset : parameter.offset + parameter.nbytes]
            typed = part.view(getattr(torch, parameter.dtype)).view(rows, *parameter.shape)
            for targets, row in zip(self.targets, typed, strict=True):
                targets.append(row)


def _live(places: Sequence[tuple[nn.Module, str]]) -> list[Tensor]:
    """Return the present parameters."""
    return [getattr(module, part) for module, part in places]


def _gpus(places: Sequence[tuple[nn.Module, str]]) -> list[str]:
    """Return the GPUs of the parameters."""
    return sorted({str(t.device) for t in _live(places) if t.device.type == "cuda"})


@torch.no_grad()
def _copy(places: Sequence[tuple[nn.Module, str]], targets: list[Tensor], gpus: Sequence[str]) -> None:
    """Copy the parameters into a row."""
    torch._foreach_copy_(targets, _live(places), non_blocking=bool(gpus))
    for device in gpus:
        torch.cuda.current_stream(device).synchronize()


def _work(
    full: "queue.SimpleQueue[tuple[_Block, int] | None]",
    free: "queue.SimpleQueue[_Block]",
    start: _Block,
    process: Process,
    failures: list[BaseException],
) -> None:
    """Process blocks in order; after a failure only return them, so that the training thread does not hang."""
    held, previous = None, start.rows[0]
    while (item := full.get()) is not None:
        block, count = item
        if not failures:
            try:
                process(block.rows[:count], previous)
            except BaseException as error:  # raised again in the training thread
                failures.append(error)
        if held is not None:
            free.put(held)
        held, previous = block, block.rows[count - 1]
