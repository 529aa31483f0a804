"""The similarities by name: the parameters of each, and its term of a stream."""

from dataclasses import fields
from typing import Any, Protocol

from torch import Tensor

from tasks.detectors.concept_side import ConceptSide
from tasks.detectors.cosines import Cos, CosCubed
from tasks.detectors.pointwise import SoftWpmi, Wpmi
from tasks.detectors.rank_reorder import RankReorder


class Term(Protocol):
    """Sums over images for A neurons, none of them dead, and S concepts."""

    def add(self, start: int, scores: Tensor) -> None: ...

    def merge(self, other: Any) -> None: ...  # Any: another term of the same class

    def joint(self) -> Tensor: ...  # a copy, which the caller may change


class Method(Protocol):
    """The checked parameters of a similarity; `lam` is the weight of its marginal."""

    @property
    def lam(self) -> float: ...

    def term(self, values: Tensor, side: ConceptSide) -> Term: ...


METHODS: dict[str, type[Any]] = {  # Any: frozen dataclasses of parameters, each a Method
    "cos": Cos,
    "cos_cubed": CosCubed,
    "wpmi": Wpmi,
    "soft_wpmi": SoftWpmi,
    "rank_reorder": RankReorder,
}


def make_method(name: str, **params: Any) -> Method:  # Any: by method
    """Return a similarity with its parameters.

    Raises
    ------
    ValueError : an unknown similarity, an unknown parameter, or a parameter out of range
    """
    if name not in METHODS:
        raise ValueError(f"similarity: expected one of {', '.join(METHODS)}, found {name!r}")
    known = [field.name for field in fields(METHODS[name])]
    for param in params:
        if param not in known:
            allowed = ", ".join(known) if known else "no parameters"
            raise ValueError(f"{param}: expected a parameter of {name} ({allowed}), found {param!r}")
    method: Method = METHODS[name](**params)
    return method
