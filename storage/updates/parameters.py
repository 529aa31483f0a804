"""The parameters of an archive and their offsets in a row: the bytes of all recorded weights after a step."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from storage.checksums import Bytes
from storage.documents import Document, canonical
from storage.updates.bits import BITS, Ints

ALIGNMENT = 16  # bytes
MODEL_ITSELF = "(the model itself)"  # shown for a layer without a name: a model that is one layer


@dataclass(frozen=True)
class Parameter:
    """A recorded parameter.

    Parameters
    ----------
    name : key in the model's state, as "conv1.weight"
    dtype : a key of BITS
    shape : sizes of its axes
    offset : bytes from the beginning of a row
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The number of values, P."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the parameter takes in a row."""
        return self.size * np.dtype(BITS[self.dtype]).itemsize

    def within(self, rows: Bytes) -> Ints:
        """Return the bit patterns (..., P) of this parameter in rows (..., bytes), a view."""
        part: Ints = rows[..., self.offset : self.offset + self.nbytes].view(BITS[self.dtype])
        return part


@dataclass(frozen=True)
class Layer:
    """A recorded layer and the parameters it uses; tied layers name the same ones."""

    name: str
    weight: str
    bias: str | None

    @property
    def parameters(self) -> list[str]:
        """Return the names of the weight and, where there is one, the bias."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


def shown_layer(name: str) -> str:
    """Return the name of a layer as people read it."""
    return name or MODEL_ITSELF


def layer_shown(shown: str) -> str:
    """Return the name of the layer that is shown so."""
    return "" if shown == MODEL_ITSELF else shown


def lay_out(parameters: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[Parameter, ...]:
    """Return parameters, given as name -> (dtype, shape), with consecutive offsets in a row.

    Raises
    ------
    ValueError : a dtype without a lossless form
    """
    found, offset = [], 0
    for name, (dtype, shape) in parameters.items():
        if dtype not in BITS:
            raise ValueError(f"parameter {name!r}: expected dtype {', '.join(BITS)}, found {dtype}")
        found.append(Parameter(name, dtype, tuple(shape), offset))
        offset += -(-found[-1].nbytes // ALIGNMENT) * ALIGNMENT
    return tuple(found)


def row_bytes(parameters: Iterable[Parameter]) -> int:
    """Return the length of a row in bytes."""
    return max((-(-(p.offset + p.nbytes) // ALIGNMENT) * ALIGNMENT for p in parameters), default=0)


def layers_document(layers: Iterable[Layer], parameters: Iterable[Parameter]) -> Document:
    """Return layers, in the model's order, and parameters as JSON."""
    return {
        "layers": [{"name": layer.name, "weight": layer.weight, "bias": layer.bias} for layer in layers],
        "parameters": {p.name: {"dtype": p.dtype, "shape": list(p.shape)} for p in parameters},
    }


READ = "read"  # in a segment's document: bytes of a parameter that the digest of a row comes from, at most


def segment_group(kind: str, span: tuple[int, int], rows: int, contents: Document) -> bytes:
    """Return the metadata of a segment's Zarr group.

    Parameters
    ----------
    span : first step, past the last
    contents : from `layers_document`
    """
    start, stop = span
    attributes = {"layerlore": {"kind": kind, "start": start, "stop": stop, "rows": rows, **contents}}
    return canonical({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def layers_of(document: Document) -> tuple[dict[str, Layer], dict[str, Parameter]]:
    """Return the layers and parameters, by name, that `document` describes."""
    layers = {entry["name"]: Layer(entry["name"], entry["weight"], entry["bias"]) for entry in document["layers"]}
    entries = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in document["parameters"].items()}
    return layers, {parameter.name: parameter for parameter in lay_out(entries)}
