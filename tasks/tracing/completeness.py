"""Whether contributions add up to what they explain."""

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_values


def completeness_residual(
    gamma_total: NDArray[np.floating], init: NDArray[np.floating], preactivation_norm: NDArray[np.floating]
) -> Doubles:
    """Return (sum_t gamma_t + <z, W_0 f> - ||z||^2) / ||z||^2 per query: 0 up to rounding for a complete archive.

    Parameters
    ----------
    gamma_total : (Q,) float, gamma summed over all steps
    init : (Q,) float, the initial weights' contribution; zeros for the anchor `displacement`, whose gammas alone sum
        to ||z||^2
    preactivation_norm : (Q,) float, ||z||

    Returns
    -------
    (Q,) float64; where z is 0, so are all contributions, and the residual is 0 (inf if they are not)
    """
    total, start = check_values("gamma_total", gamma_total, 1), check_values("init", init, 1)
    square = np.square(check_values("preactivation_norm", preactivation_norm, 1))
    if not len(total) == len(start) == len(square):
        raise ValueError(f"expected one number per query, got {len(total)}, {len(start)} and {len(square)}")
    left = total + start - square
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left == 0, 0.0, left / square)
