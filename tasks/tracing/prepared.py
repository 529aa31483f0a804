"""Projectors that are kept between blocks of updates: the queries of a layer are prepared once for all blocks."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tasks.modules import Embedding, kind_of
from tasks.modules.rows import Inputs, values_of
from tasks.tracing.contributed import Contributions
from tasks.tracing.products import product_type
from tasks.tracing.projections import contributions
from tasks.tracing.projector import Projector
from tasks.tracing.strategies import BUDGET, checked_operation, choose_strategy, queries_within


@dataclass(frozen=True)
class Queries:
    """A batch of queries at a layer, as `tasks.tracing.contributions` takes them."""

    module: nn.Module
    weight: Tensor
    inputs: Inputs
    anchor: Tensor | None
    bias: Tensor | None

    versions: tuple[int, ...] = field(init=False)  # torch's counts of changes in place

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "versions", tuple(-1 if t is None or t.is_inference() else t._version for t in self._tensors)
        )

    def same(self, other: "Queries") -> bool:
        """Return whether two batches are the same objects with the same values."""
        pairs = zip(
            (self.module, self.inputs, *self._tensors), (other.module, other.inputs, *other._tensors), strict=True
        )
        return self.versions == other.versions and all(one is another for one, another in pairs)

    @property
    def counted(self) -> bool:
        """Whether torch counts changes in place of all tensors but the inputs."""
        return not any(t is not None and t.is_inference() for t in (self.weight, self.anchor, self.bias))

    @property
    def _tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors of the batch."""
        return self.weight, values_of(self.inputs), self.anchor, self.bias


@dataclass(frozen=True)
class Given:
    """The queries that something was prepared for."""

    queries: Queries
    values: Tensor  # a copy of the inputs: they may be memory of another library, which torch does not count
    products: torch.dtype

    @classmethod
    def of(cls, queries: Queries) -> "Given":
        """Note queries."""
        values = values_of(queries.inputs)
        return cls(queries, values.clone(), product_type(values))

    def are(self, queries: Queries) -> bool:
        """Return whether queries are these, with the same values and the same products."""
        values = values_of(queries.inputs)
        same = self.queries.same(queries) and queries.counted and self.products == product_type(values)
        return same and torch.equal(self.values, values)


@dataclass(frozen=True)
class _Kept:
    """A projector, and what it was prepared for."""

    given: Given
    n_steps: int
    projector: Projector


@dataclass
class Prepared:
    """The projectors of some layers' last queries; together they hold at most `budget` bytes.

    Results are those of `tasks.tracing.contributions`, bit for bit.
    """

    budget: int = BUDGET
    _kept: dict[str, _Kept] = field(default_factory=dict, init=False)

    def contributions(
        self, layer: str, queries: Queries, updates: Tensor, bias_updates: Tensor | None
    ) -> Contributions:
        """Project updates of a layer on queries; the inputs' dtype and device are those of the updates.

        Parameters
        ----------
        layer : name under which the projector is kept
        """
        if (known := self.known(layer, queries, len(updates))) is not None:
            return known.contributions(updates, bias_updates)
        self._kept.pop(layer, None)
        given = queries.module, queries.weight, queries.inputs
        if not _in_one_batch(queries, len(updates)) or (bias_updates is None) != (queries.bias is None):
            return contributions(*given, updates, anchor=queries.anchor, bias=queries.bias, bias_updates=bias_updates)
        made = Projector(*given, anchor=queries.anchor, bias=queries.bias, n_steps=len(updates))
        if made.nbytes + sum(kept.projector.nbytes for kept in self._kept.values()) <= self.budget:
            self._kept[layer] = _Kept(Given.of(queries), len(updates), made)
        return made.contributions(updates, bias_updates)

    def known(self, layer: str, queries: Queries, n_steps: int) -> Projector | None:
        """Return the projector that is kept under a name, None where it is not one of these queries and steps."""
        kept = self._kept.get(layer)
        return kept.projector if kept is not None and kept.n_steps == n_steps and kept.given.are(queries) else None


def _in_one_batch(queries: Queries, n_steps: int) -> bool:
    """Return whether one projector takes all queries, of which there are some; an embedding's knows its tokens."""
    if isinstance(kind_of(queries.module), Embedding):
        return False
    operation = checked_operation(queries.module, queries.weight, queries.inputs, queries.anchor, queries.bias, None)
    strategy = choose_strategy(operation, queries.inputs, True, n_steps)
    return 0 < len(queries.inputs) <= queries_within(operation, queries.inputs, strategy)
