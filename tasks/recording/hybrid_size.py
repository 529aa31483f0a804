"""The size of a hybrid archive before the first step."""

from typing import TYPE_CHECKING

import numpy as np

from storage.updates.bits import BITS
from storage.updates.tables import FACTORS
from tasks.recording.codes import EXACT, ROUNDED, code_bytes, factor_bytes, smallest_code
from tasks.recording.factors import factorable

if TYPE_CHECKING:
    from tasks.recording.archives import Contents

SGD = ("SGD", "sgd")  # torch's class, and the kind of a config


def hybrid_bytes(contents: "Contents", steps: int) -> int:
    """Return the bytes of `steps` updates, without ledger and checkpoints.

    Factors are counted for layers with known inputs and outputs; others may turn out smaller.
    """
    weights = {layer.weight: layer.name for layer in contents.layers}
    total = 0
    for p in contents.parameters:
        itemsize, code, numbers = np.dtype(BITS[p.dtype]).itemsize, EXACT, 0
        if p.name in weights and p.dtype in ROUNDED:
            numbers = _numbers(contents, weights[p.name])
            code = smallest_code(contents.tolerance, p.shape, itemsize, numbers)
        total += (
            factor_bytes(numbers, itemsize, contents.tolerance)
            if code == FACTORS
            else code_bytes(code, p.shape, itemsize)
        )
    return total * steps


def _numbers(contents: "Contents", layer: str) -> int:
    """Return the numbers in a layer's factors of a step, 0 where they are not kept or unknown."""
    each = (contents.numbers or {}).get(layer, 0)
    if contents.optimizer not in SGD or not factorable(contents.modules[layer]):
        return 0
    return contents.members * each
