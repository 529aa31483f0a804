"""Network Dissection of whole arrays: thresholds, then tallies (Bau et al. 2017)."""

import numpy as np

from tasks.detectors.arrays import Floats, Integers, check_values
from tasks.detectors.dissection import Dissection
from tasks.detectors.tallies import Tallies
from tasks.detectors.thresholds import TopValues, check_quantile

IMAGES = 256  # at a time, in the search for thresholds


def dissect(
    maps: Floats,
    masks: Integers,
    labels: Integers,
    *,
    quantile: float = 0.005,
    threshold: Floats | None = None,
    category_restriction: str = "image",
) -> Dissection:
    """Compare where units are active with where labels are.

    Parameters
    ----------
    maps : (N, K, h, w) float, maps of K units on N images
    masks : (N, P, H, W) integer label numbers, one plane per annotation channel, 0 nothing; a label of the whole image
        is a plane filled with its number
    labels : (L,) integer, category index of each label number, -1 for number 0
    quantile : share of a unit's values above its threshold, 0 to 1
    threshold : (K,) given thresholds, in place of the quantile: the counts of chunks of images then add up
    category_restriction : which of a unit's pixels count for a category: those of "image"s that contain the category,
        those of the "region" that the category's labels cover, or all ("none")

    Returns
    -------
    Dissection, with `.iou` (K, L), `.intersection` (K, L), `.label_area` (L,), `.unit_area` (K, C), `.threshold` (K,)

    Raises
    ------
    TypeError : not NumPy arrays of numbers, masks or labels that are not integers
    ValueError : wrong shapes, NaN, a label number outside the labels, a parameter out of range
    """
    units = check_values("maps", maps, 4)
    check_quantile(quantile)
    if threshold is None:
        top = TopValues(units.size // units.shape[1], quantile)
        for start in range(0, len(units), IMAGES):
            top.update(units[start : start + IMAGES])
        threshold = top.threshold()
    return Tallies(labels, np.asarray(threshold), category_restriction).update(units, masks).result()
