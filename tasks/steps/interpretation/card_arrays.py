"""The arrays of cards: a class's features with the images on which each responds most, whatever the method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition

FEATURES = 10  # of a class, the most important ones
IMAGES = 4  # of a feature
SEARCHED = 256  # images of a class, evenly spread, that are searched for these

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class ClassCards:
    """The features of a class, most important first, and the images on which each responds most.

    Attributes
    ----------
    feature : (s,) int64, number of the component, topic or unit
    importance : (s,) share, as the method defines it; NaN where it is not known
    activity : (s,) share of the searched images on which a feature is active
    position : (s, IMAGES) int64, of an image in its split; -1 where a feature does not respond to more images
    value : (s, IMAGES), the largest response on the image
    box : (s, IMAGES, 4), top, left, bottom and right of the region around the peak, as shares of height and width
    searched : number of images
    """

    feature: NDArray[np.int64]
    importance: Doubles
    activity: Doubles
    position: NDArray[np.int64]
    value: Doubles
    box: Doubles
    searched: int


def card_layout(n_classes: int, slots: int, rows: int) -> Layout:
    """Return the layout of the cards of a method's features.

    Parameters
    ----------
    n_classes : number of classes
    slots : most features of a class
    rows : classes of a partition
    """

    def array(dtype: str, **axes: int) -> ArrayLayout:
        return ArrayLayout((n_classes, *axes.values()), dtype, ("class", *axes), rows, rows)

    each = {"slot": slots, "image": IMAGES}
    arrays = {
        "label": array("int64"),
        "searched": array("int64"),
        "feature": array("int64", slot=slots),
        "importance": array("float64", slot=slots),
        "activity": array("float64", slot=slots),
        "position": array("int64", **each),
        "value": array("float64", **each),
        "box": array("float64", **each, side=4),
    }
    return Layout(arrays["label"].partitions, arrays)


def write_cards(part: Partition, layout: Layout, labels: Sequence[int], cards: Sequence[ClassCards]) -> None:
    """Write the cards of a partition's classes; slots without a feature are -1 and NaN."""
    part.write("label", np.array(labels, np.int64))
    part.write("searched", np.array([one.searched for one in cards], np.int64))
    for name in ("feature", "importance", "activity", "position", "value", "box"):
        array = layout.arrays[name]
        whole = np.full((len(cards), *array.shape[1:]), -1 if array.dtype == "int64" else np.nan, array.dtype)
        for row, one in enumerate(cards):
            values = getattr(one, name)
            whole[row, : len(values)] = values
        part.write(name, whole)


def most_important(importance: Doubles, features: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `FEATURES` of features (rising numbers), by falling importance (of all numbers), NaN last."""
    order = np.argsort(-importance[features], kind="stable")
    return features[order][:FEATURES]
