"""Check that contributions add up to the representation."""

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_values


def completeness_residual(
    gamma_total: NDArray[np.floating], init: NDArray[np.floating], preactivation_norm: NDArray[np.floating]
) -> Doubles:
    """Return the residual (sum_t gamma_t + <z, W_0 f> - ||z||^2) / ||z||^2 per query.

    Parameters
    ----------
    gamma_total : (Q,) float, gamma summed over all steps
    init : (Q,) float, the initial weights' contribution; zeros for the anchor `displacement`, where the gammas alone
        sum to ||z||^2
    preactivation_norm : (Q,) float, ||z||

    Returns
    -------
    (Q,) float64, 0 up to rounding for a complete archive. Where z is 0, the residual is 0 if all contributions are 0,
    else inf.
    """
    total, start = check_values("gamma_total", gamma_total, 1), check_values("init", init, 1)
    square = np.square(check_values("preactivation_norm", preactivation_norm, 1))
    if not len(total) == len(start) == len(square):
        raise ValueError(
            "gamma_total, init, preactivation_norm: expected one number per query, found "
            f"{len(total)}, {len(start)} and {len(square)}"
        )
    left = total + start - square
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left == 0, 0.0, left / square)
