"""Units that a coreset finds for a class and the full data does not (Behzadi-Khormouji & Oramas, section 4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class CoresetUnits:
    """Some units that coresets find and the full data does not, each with its class.

    Attributes
    ----------
    classes, units : (k,) int64, the index of the class and of the unit
    weights : (k, s) float64, the unit's weight for the class on each of s coresets; 0 where it is not found
    elsewhere : (k,) bool, whether the full data finds the unit for another class
    total : number of such pairs of a class and a unit, of which k are listed
    """

    classes: NDArray[np.int64]
    units: NDArray[np.int64]
    weights: Doubles
    elsewhere: NDArray[np.bool_]
    total: int


def coreset_units(reference: Doubles, coresets: Iterable[Doubles], most: int) -> CoresetUnits:
    """Choose pairs of a class and a unit with a weight on a coreset and none on the full data.

    Parameters
    ----------
    reference : (C, M) weights >= 0 on the full data
    coresets : (C, M) weights of each coreset, of which one is in memory at a time
    most : number of pairs at most

    Returns
    -------
    CoresetUnits in the order of choice: coresets take turns, each gives its first pair that is not listed yet. A
    coreset's pairs are ordered: units that the full data finds for no class, then by falling weight, class and unit.
    """
    anywhere: NDArray[np.bool_] = np.any(reference > 0, axis=0)
    found = [_alone(weights, reference, anywhere) for weights in coresets]
    listed = dict.fromkeys(pair for turn in zip_longest(*found) for pair in turn if pair is not None)
    pairs = list(islice(listed, most))
    chosen = np.array(pairs, np.int64).reshape(-1, 2)
    weights = np.array([[each.get(pair, 0.0) for each in found] for pair in pairs]).reshape(len(pairs), len(found))
    return CoresetUnits(chosen[:, 0], chosen[:, 1], weights, anywhere[chosen[:, 1]], len(listed))


def _alone(weights: Doubles, reference: Doubles, anywhere: NDArray[np.bool_]) -> dict[tuple[int, int], float]:
    """Return the weights of the pairs that the full data does not find, in their order."""
    classes, units = np.nonzero((weights > 0) & (reference == 0))
    values = weights[classes, units]
    order = np.lexsort((units, classes, -values, anywhere[units]))
    pairs = zip(classes[order].tolist(), units[order].tolist(), strict=True)
    return dict(zip(pairs, values[order].tolist(), strict=True))
