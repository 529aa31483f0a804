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
from tasks.recording.fingerprints import Changes

PROBES = 4  # the estimate of a norm from so many is within a factor of two, 9 times in 10
SEED = 20220222  # of the signs, the same in every archive


def update_probes(parameters: Sequence[Parameter], changes: Sequence[Changes]) -> NDArray[np.float64]:
    """Return the projections (k, PROBES) of k updates of a layer on signs, in float64.

    A parameter with a sample takes part with it, scaled to the size of the parameter.

    Parameters
    ----------
    parameters : of the layer
    changes : (k, m) updates of the sampled values of each parameter (`fingerprints.sampled_changes`)
    """
    found = np.zeros((len(changes[0]), PROBES))
    for number, (parameter, change) in enumerate(zip(parameters, changes, strict=True)):
        count = change.shape[1]
        # By torch: NumPy's threads would wait for the next product at full load during the training.
        projected = torch.mm(torch.from_numpy(change), _signs(count, number).T).numpy()
        found += math.sqrt(parameter.size / max(1, count)) * projected
    return found


def drift(here: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    """Return the estimated norm of the difference of two updates with these probes."""
    return float(np.sqrt(np.mean(np.square(here - there))))


@lru_cache(maxsize=64)  # of at most 0.5 MB each; parameters with as many sampled values share theirs
def _signs(count: int, number: int) -> Tensor:
    """Return signs (PROBES, count) for the parameter of an index in its layer."""
    rng = np.random.default_rng([SEED, number])
    return torch.from_numpy(rng.integers(0, 2, (PROBES, count)).astype(np.float64) * 2.0 - 1.0)
