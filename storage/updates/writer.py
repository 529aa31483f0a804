"""The dense writer of one segment: from rows of weights to differences, norms and digests."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from storage.checksums import Bytes, Write
from storage.updates.bits import update_norms, weights_digests
from storage.updates.chunks import ChunkWriter, plan_chunks
from storage.updates.parameters import Layer, Parameter, layers_document, segment_group

KIND = "dense"
UPDATES = "updates"  # the Zarr group of a segment
WORTH_A_THREAD = 2**20  # bytes of rows; threads cost more than they save for fewer


@dataclass(frozen=True)
class Written:
    """The values by layer that the ledger keeps for each row of a segment; `stills` where digests do not show them."""

    norms: dict[str, list[float]] = field(default_factory=dict)
    digests: dict[str, list[int]] = field(default_factory=dict)
    probes: dict[str, list[list[float]]] = field(default_factory=dict)
    stills: dict[str, list[int]] = field(default_factory=dict)


class DenseWriter:
    """Writes every update of a segment of at most `steps` steps below `folder`.

    Holds a chunk per parameter (`storage.updates.chunks`) and 1 MB per thread. The files do not depend on `threads`.
    With `packed` the chunks are compressed.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        parameters: Sequence[Parameter],
        folder: str,
        steps: int,
        write: Write,
        threads: int,
        *,
        packed: bool = False,
    ) -> None:
        self.written = Written({layer.name: [] for layer in layers}, {layer.name: [] for layer in layers})
        self.layers, self.parameters = layers, parameters
        self._folder, self._write = folder, write
        chunks = {name: replace(one, packed=packed) for name, one in plan_chunks(parameters, steps).items()}
        self._chunks = {
            p.name: ChunkWriter(p, chunks[p.name], f"{folder}/{UPDATES}/{p.name}", write) for p in parameters
        }
        self._by_name = {p.name: p for p in parameters}
        self._pool = ThreadPoolExecutor(threads, "layerlore-chunks") if threads > 1 else None

    def add(self, rows: Bytes, previous: Bytes) -> None:
        """Append rows of weights.

        Parameters
        ----------
        rows : (n, row bytes), the weights after each of n rows
        previous : (row bytes,), the weights before the first
        """
        work = [lambda p=p: self._difference(p, rows, previous) for p in self.parameters]
        work += [
            lambda layer=layer: describe_rows(self.written, layer, self._by_name, rows, previous)
            for layer in self.layers
        ]
        self._run(work, rows.nbytes)

    def close(self, start: int, stop: int) -> int:
        """Write the remaining rows; return the number of all rows."""
        rows = [chunks.close() for chunks in self._chunks.values()]
        assert len(set(rows)) == 1, rows
        document = layers_document(self.layers, self.parameters)
        group = segment_group(KIND, (start, stop), rows[0], document)
        self._write(f"{self._folder}/{UPDATES}/zarr.json", group)
        self.abandon()
        return rows[0]

    def abandon(self) -> None:
        """Free the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _difference(self, parameter: Parameter, rows: Bytes, previous: Bytes) -> None:
        """Append a parameter's differences."""
        self._chunks[parameter.name].add(parameter.within(rows), parameter.within(previous))

    def _run(self, work: Iterable[Callable[[], None]], nbytes: int) -> None:
        """Do all of `work`, in parallel where that saves time."""
        if self._pool is None or nbytes < WORTH_A_THREAD:
            for task in work:
                task()
        else:
            for future in [self._pool.submit(task) for task in work]:
                future.result()


def describe_rows(
    written: Written, layer: Layer, parameters: Mapping[str, Parameter], rows: Bytes, previous: Bytes | list[float]
) -> None:
    """Append the norm of the weight's update and the digest of all parameters of a layer in each row.

    Parameters
    ----------
    parameters : by name, laid out in the rows
    rows : as in `DenseWriter.add`
    previous : as in `DenseWriter.add`, or the norms where they are known
    """
    weight = parameters[layer.weight]
    if isinstance(previous, list):
        written.norms[layer.name].extend(previous)
    else:
        norms = update_norms(weight.within(rows), weight.within(previous), weight.dtype)
        written.norms[layer.name].extend(norms.tolist())
    parts = [parameters[name].within(rows) for name in layer.parameters]
    written.digests[layer.name].extend(weights_digests(parts))
