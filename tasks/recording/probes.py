"""Sign probes: projections of an update on random signs, from which a replay measures its drift.

For signs s that are independent and fair, the expected square of <s, x> is the squared norm of x. So the difference of
the probes of two updates estimates the norm of their difference, without either update.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.updates.parameters import Parameter
from tasks.recording.fingerprints import Change

PROBES = 4  # the estimate of a norm from so many is within a factor of two, 9 times in 10
SEED = 20220222  # of the signs, the same in every archive


def update_probes(parameters: Sequence[Parameter], changes: Sequence[Change]) -> NDArray[np.float64]:
    """Return the projections (PROBES,) of a layer's update on signs, in float64.

    A parameter with a sample takes part with it, scaled to the size of the parameter.

    Parameters
    ----------
    parameters : of the layer
    changes : update of the sampled values of each parameter (`fingerprints.sampled_change`)
    """
    found = np.zeros(PROBES)
    for number, (parameter, change) in enumerate(zip(parameters, changes, strict=True)):
        # By torch: NumPy's threads would wait for the next product at full load during the training.
        projected = torch.mv(_signs(len(change), number), torch.from_numpy(change)).numpy()
        found += math.sqrt(parameter.size / max(1, len(change))) * projected
    return found


def drift(here: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    """Return the estimated norm of the difference of two updates with these probes."""
    return float(np.sqrt(np.mean(np.square(here - there))))


@lru_cache(maxsize=64)  # of at most 0.5 MB each; parameters with as many sampled values share theirs
def _signs(count: int, number: int) -> Tensor:
    """Return signs (PROBES, count) for the parameter of an index in its layer."""
    rng = np.random.default_rng([SEED, number])
    return torch.from_numpy(rng.integers(0, 2, (PROBES, count)).astype(np.float64) * 2.0 - 1.0)
