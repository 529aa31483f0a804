"""One partition of a stage, as a worker writes it: the first result is kept.

Claims are best effort: two runs may make one partition at once. On different machines their results may differ in
the last digits. The first partition record decides: a process that finds it stops and leaves the stored result.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.checksums import content_digest
from storage.documents import Document, digest
from storage.layouts import array_digest, write_shard
from storage.stores import StoreError

if TYPE_CHECKING:
    from storage.stages import Stage

Block = NDArray[np.generic]
Put = Callable[[str, bytes | memoryview], None]

LOOK = 1.0  # seconds for which one look for the partition record is enough between two writes


class OvertakenError(StoreError):
    """Another run has written the partition or finished the stage; this process has nothing left to do."""


@dataclass
class Partition:
    """What a worker writes in one partition; its record keeps the metrics in `numbers`.

    `removed` names files of earlier partitions that the stage does without from now on. They are deleted once the
    record says so.

    Writing raises OvertakenError once another run has written the partition.
    """

    stage: "Stage"
    number: int
    arrays: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    numbers: Document = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    _looked: float = -math.inf

    @property
    def span(self) -> tuple[int, int]:
        """The rows of the first array that this partition holds."""
        return next(iter(self.stage.layout.arrays.values())).span(self.number)

    def write(self, name: str, block: Block) -> None:
        """Write this partition's rows of array `name`: a whole shard, by its only writer.

        Raises
        ------
        ValueError : shape or dtype differ from the layout
        """
        layout = self.stage.layout.arrays[name]
        start, stop = layout.span(self.number)
        expected = (stop - start, *layout.shape[1:])
        if block.shape != expected or block.dtype != np.dtype(layout.dtype):
            raise ValueError(
                f"{self.stage.spec.title}, array {name!r}, partition {self.number}: "
                f"expected {layout.dtype} {expected}, found {block.dtype} {block.shape}"
            )
        self.look(LOOK)
        if block.size:
            write_shard(self.stage.store, self.stage.spec.path, name, layout, self.number, block)
        self.arrays[name] = array_digest(block)

    def write_file(self, name: str, data: bytes | memoryview) -> None:
        """Write `files/<name>` whole."""
        self._write_file(self.stage.store.write, name, data, digest(data))

    def write_large(self, name: str, data: bytes | memoryview, *, checked: bool = False) -> None:
        """Write `files/<name>` whole, past the page cache where the disk can: it is not read soon.

        Parameters
        ----------
        checked : whether the data end with their checksum (`storage.checksums`)
        """
        self._write_file(self.stage.store.write_large, name, data, content_digest(data, checked=checked))

    def write_addressed(self, form: str, data: bytes) -> str:
        """Write a file that is not read soon; return its name, which is `form` with the start of its digest.

        Parameters
        ----------
        form : with the field `digest`
        """
        found = digest(data)
        name = form.format(digest=found[:12])
        self._write_file(self.stage.store.write_large, name, data, found)
        return name

    def _write_file(self, write: Put, name: str, data: bytes | memoryview, found: str) -> None:
        """Write a file whose digest is `found`."""
        self.look(LOOK)
        write(f"{self.stage.spec.path}/files/{name}", data)
        self.files[name] = found

    def look(self, patience: float = 0.0) -> None:
        """Raise OvertakenError if the partition has a record by now; a look within `patience` seconds is enough.

        Most steps compute for long before their first write. The other writes follow at once.
        """
        now = time.monotonic()
        if now - self._looked < patience:
            return
        if self.stage.marker(self.number) is not None:
            raise OvertakenError(
                f"{self.stage.spec.title}: another run wrote partition {self.number} in the meantime; "
                "what it wrote is kept"
            )
        self._looked = now
