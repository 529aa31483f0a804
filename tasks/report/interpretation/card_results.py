"""What the cards of features are made from: tables and pictures, nothing from a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from tasks.report.pages import Image

FULL = "full data"  # as the selector of a set


@dataclass(frozen=True)
class CardResults:
    """The features of all sets: those of the full data, and those of each first draw of a coreset.

    Attributes
    ----------
    sets : set (int), network, seed, interpreter, noun, selector ("full data" for the reference), budget (0..1),
        reference (the set of the full data), directed (bool)
    classes : set, label, class_name, n_features, n_images, searched (images), shown (bool), accuracy, accuracy_without
        (0..1; NaN unknown)
    features : set, label, slot (0: most important), feature (number), name, layer ("" but for units), importance,
        activity (0..1), shapley (NaN but for topics), matched (number of the reference's feature, -1 none), angle
        (degrees, NaN unknown)
    images : set, label, feature, rank, sample_id (-1 where it may not be shown), value, top, left, bottom, right
        (shares of the image), picture (key of `pictures`, "" none)
    matches : set, label, feature (of the reference), partner (feature of the set, -1 none), angle
    pictures : small images by key
    yardsticks : network, interpreter, angle: degrees between features of different classes, matched the same way
    split : of the images
    """

    sets: pd.DataFrame
    classes: pd.DataFrame
    features: pd.DataFrame
    images: pd.DataFrame
    matches: pd.DataFrame
    pictures: Mapping[str, Image] = field(default_factory=dict)
    yardsticks: pd.DataFrame = field(default_factory=pd.DataFrame)
    split: str = "val"
