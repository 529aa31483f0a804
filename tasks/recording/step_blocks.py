"""What blocks of all kinds of archive have in common, and what blocks of whole updates do with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.updates.parameters import shown_layer
from tasks.modules.embedding import tokens_as_floats
from tasks.modules.rows import Inputs, values_of
from tasks.recording.columns import Credit, check_credit
from tasks.tracing import Contributions
from tasks.tracing.checks import NotFiniteError
from tasks.tracing.prepared import Prepared, Queries

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class StepBlock:
    """The updates of some steps of one layer, n rows.

    Parameters
    ----------
    layer : name of the layer
    start, stop : first and past-the-end step of the block
    recorded : whether each row is one step; otherwise one row is the sum of all steps, which were not recorded
    biases : (n + 1, out) before the first row and after each, bitwise; None without a bias
    """

    layer: str
    start: int
    stop: int
    recorded: bool
    biases: Tensor | None

    @property
    def steps(self) -> Ids:
        """Return the step of each row (n,), the last step for a row of several steps."""
        return np.arange(self.start if self.recorded else self.stop - 1, self.stop, dtype=np.int64)

    def dense_bias(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """Return the updates of the bias, (n, out), or None."""
        return None if self.biases is None else differences(self.biases, dtype)

    @contextmanager
    def naming_steps(self) -> Iterator[None]:
        """Raise ValueError with step and layer where the block finds an update of this block that is not finite."""
        try:
            yield
        except NotFiniteError as error:
            if error.name not in ("updates", "bias_updates"):
                raise
            raise ValueError(
                f"step {self.steps[error.row]}, layer {shown_layer(self.layer)!r}: expected a finite update, found NaN "
                "or inf; the training diverged there, read the steps before"
            ) from error


class WholeBlock(StepBlock):
    """A block that keeps each update whole, without the parts of its members."""

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates (n, *weight.shape), on the CPU."""
        raise NotImplementedError

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return `tasks.tracing.contributions` of these updates, (Q, n), on the inputs' device.

        Parameters
        ----------
        module, weight, inputs, anchor, bias : as in `contributions`; with `bias` updates of the bias are included
        """
        inputs = tokens_as_floats(module, weight, inputs)
        wide = torch.promote_types(inputs.dtype, torch.float32)
        biases = None if bias is None else self.dense_bias(wide)
        changes = None if biases is None else biases.to(values_of(inputs))
        queries = Queries(module, weight, inputs, anchor, bias)
        with self.naming_steps():
            return self.projectors().contributions(self.layer, queries, self.dense(wide).to(values_of(inputs)), changes)

    def projectors(self) -> Prepared:
        """Return where projectors are kept, for kinds in which blocks of a segment share them."""
        return Prepared()

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Raise NotImplementedError: a whole update cannot be split by its members."""
        check_credit(credit)
        raise NotImplementedError(
            f"layer {shown_layer(self.layer)!r}: expected an archive with each example's part, found whole updates; "
            "use replay, or layers with factors"
        )


def differences(rows: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return rows[1:] - rows[:-1], subtracted in `dtype`."""
    wanted = dtype or torch.promote_types(rows.dtype, torch.float32)
    widened = rows.to(wanted)
    return widened[1:] - widened[:-1]
