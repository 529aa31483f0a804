"""Projections of a weight that changes step by step, from its products with the queries: no earlier weight is kept.

With Y_t = W_t F in float64, D F = Y_{t+1} - Y_t (Pfahler & Morik 2022, Eqs. 6 and 7). An update of float32 weights that
changes a preactivation at all changes it by far more than float64 rounds.
"""

import torch
from torch import Tensor, nn

from tasks.modules.rows import Inputs, Rows, values_of, with_values
from tasks.tracing.checks import NotFiniteError
from tasks.tracing.contributed import Contributions, described
from tasks.tracing.products import for_one_product, of_moved, product_type
from tasks.tracing.strategies import checked_operation, choose_strategy, n_positions

CACHED = 2**18  # bytes of a weight's rows that stay in the processor's cache together with a copy in float64
LARGE = 4 * 2**20  # bytes of a weight whose copies cost more than products in float64
MOST = 16  # columns of queries up to which they do


def runs(
    module: nn.Module, weight: Tensor, inputs: Inputs, *, anchor: Tensor | None = None, bias: Tensor | None = None
) -> bool:
    """Return whether running products are cheaper for single updates of a layer: of a large one, for few queries."""
    alike = {(t.dtype, t.device.type) for t in (weight, values_of(inputs))} == {(torch.float32, "cpu")}
    if bias is not None or not alike or weight.nbytes < LARGE or product_type(inputs) != torch.float32:
        return False
    operation = checked_operation(module, weight, inputs, anchor, bias, None)
    if operation.groups > 1 or operation.copies:
        return False
    few = 0 < len(inputs) * n_positions(operation, inputs) <= MOST
    return few and choose_strategy(operation, inputs, True, 1) == "matrices"


class RunningProducts:
    """Queries at a layer for which `runs` holds, and the product of the present weight with them.

    Parameters
    ----------
    module, weight, inputs, anchor : as in `tasks.tracing.contributions`
    start : (*weight.shape) the first weight
    """

    def __init__(self, module: nn.Module, weight: Tensor, inputs: Inputs, anchor: Tensor | None, start: Tensor) -> None:
        given = inputs.trimmed() if isinstance(inputs, Rows) else inputs
        self._operation = checked_operation(module, weight, given, anchor, None, None)
        chosen = (weight if anchor is None else anchor).detach()
        with torch.no_grad():
            rows = self._operation.rows(with_values(given, values_of(given).detach().double()))
            z = self._operation.matrices(chosen.double()[None], None)[0] @ rows
            self._z_norm = z.square().sum(dim=(1, 2, 3)).sqrt()
            rows, self._z = for_one_product(rows, z)
            self._rows = rows[0]
            self._last = self._products(start)

    @torch.no_grad()
    def move(self, weight: Tensor) -> Contributions:
        """Return the contributions of the change from the last weight to this one, (Q, 1) in float32.

        Raises
        ------
        ValueError : NaN or inf
        """
        now = self._products(weight)
        if not torch.isfinite(now.sum()):
            error = NotFiniteError("updates: expected finite values, found NaN or inf in the weight after one of them")
            error.name = "updates"
            raise error
        moved, self._last = (now - self._last).view(1, 1, len(now), *self._z.shape[2:]), now
        return described(*of_moved(moved, self._z), self._z_norm, torch.float32)

    def _products(self, weight: Tensor) -> Tensor:
        """Return W F (o, Q L), a few rows of the weight at a time."""
        matrix = self._operation.matrices(weight.detach()[None], None)[0, 0]
        found = self._rows.new_empty(len(matrix), self._rows.shape[1])
        step = max(1, CACHED // (matrix.element_size() * matrix.shape[1]))
        wide = self._rows.new_empty(min(step, len(matrix)), matrix.shape[1])
        for some, products in zip(torch.split(matrix, step), torch.split(found, step), strict=True):
            torch.mm(wide[: len(some)].copy_(some), self._rows, out=products)
        return found
