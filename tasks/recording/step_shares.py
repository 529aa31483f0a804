"""What a replay keeps of the members of a step at a layer: factors of their gradients, or the gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from storage.updates.tables import Settings
from tasks.modules.rows import values_of
from tasks.recording.columns import Call, KeptColumns
from tasks.tracing import gammas
from tasks.tracing.prepared import Queries


@dataclass(frozen=True)
class StepShares:
    """The gradients of a step's members at a layer, in factors.

    Parameters
    ----------
    calls : the layer's calls; either each has all members, or together they have each member once
    examples, ghosts : number of each
    effect : sum over all later steps of what a gradient of 1 does to the weights
    own : what a gradient of 1 does to the weights in this step
    settings : of the optimiser's step; None where it left the weight alone
    problem : why the update cannot be split, "" if it can
    gradients : of weight and bias by member, (members, *shape); None where `calls` have the factors
    outside : changes (*shape) of weight and bias outside the optimiser's step, None for none
    """

    calls: tuple[Call, ...]
    examples: int
    ghosts: int
    effect: float
    own: float
    settings: Settings | None
    problem: str = ""
    gradients: tuple[Tensor, Tensor | None] | None = None
    outside: tuple[Tensor | None, Tensor | None] | None = None

    @property
    def members(self) -> int:
        """The number of examples and ghosts."""
        return self.examples + self.ghosts

    @property
    def nbytes(self) -> int:
        """The bytes of the factors, of the gradients by member, and of outside changes."""
        whole = [one for one in (*(self.gradients or ()), *(self.outside or ())) if one is not None]
        return sum(tensor.nbytes for tensor in (*whole, *(one for call in self.calls for one in call)))

    def moved(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what each member does to weight and bias, of such shapes: its gradient in all updates, and its share.

        The examples share equally what changed outside the optimiser's step.
        """
        found: list[Tensor | None] = []
        both = zip((weight, bias), self.gradients or (None, None), self.outside or (None, None), strict=True)
        for like, one, outside in both:
            moved = None if like is None else like.new_zeros(self.members, *like.shape)
            moved = moved if one is None else self.effect * one
            if moved is not None and outside is not None:
                moved[: self.examples] += outside.to(moved) / max(1, self.examples)
            found.append(moved)
        assert found[0] is not None
        return found[0], found[1]


def columns_of(steps: Sequence[StepShares], layer: str, queries: Queries, kept: KeptColumns) -> list[Tensor]:
    """Return <z, G_b f> of the gradient G_b of each member of each step, (Q, members)."""
    module, weight, inputs, anchor = queries.module, queries.weight, queries.inputs, queries.anchor
    calls = [(one.calls, one.members) for one in steps if one.gradients is None]
    made = iter(kept.of(layer, queries, calls) if calls else ())
    return [
        next(made)
        if one.gradients is None
        else gammas(module, weight, inputs, one.gradients[0].to(values_of(inputs)), anchor=anchor)
        for one in steps
    ]
