"""A table of units in the columns of the published Network Dissection tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.detectors.dissection import Dissection, best_labels


def unit_table(dissection: Dissection, names: Sequence[str], categories: Sequence[str]) -> pd.DataFrame:
    """Describe each unit by its best label, over all categories and in each.

    Parameters
    ----------
    dissection : counts of K units
    names : L names of label numbers
    categories : C names of categories; some, also the last, may be without labels

    Returns
    -------
    a row per unit: `unit` from 1, `category`, `label`, `score` (IoU); for each category `<category>-label`, `-truth`
    (pixels of the label), `-activation` (of the unit), `-intersect` and `-iou`. Where no label overlaps, the name is
    empty and its numbers are 0.
    """
    n_units, n_categories = dissection.unit_area.shape
    if len(names) != len(dissection.labels) or len(categories) < n_categories:
        raise ValueError(
            f"names, categories: expected {len(dissection.labels)} labels and at least {n_categories} categories, "
            f"found {len(names)} and {len(categories)}"
        )
    best, words = best_labels(dissection), np.array(["", *names[1:]], dtype=object)
    kinds = np.array([*categories, ""], dtype=object)  # number 0 has category -1
    columns = {
        "unit": np.arange(1, n_units + 1),
        "category": kinds[dissection.labels[best.label]],
        "label": words[best.label],
        "score": best.iou,
    }
    for index, category in enumerate(categories):
        labelled = bool((dissection.labels == index).any())  # the counts end with the last category that has labels
        label = best.category_label[:, index] if labelled else np.zeros(n_units, dtype=np.int64)
        columns[f"{category}-label"] = words[label]
        columns[f"{category}-truth"] = dissection.label_area[label]
        columns[f"{category}-activation"] = dissection.unit_area[:, index] if labelled else np.zeros_like(label)
        columns[f"{category}-intersect"] = dissection.intersection[np.arange(n_units), label]
        columns[f"{category}-iou"] = best.category_iou[:, index] if labelled else np.zeros(n_units)
    return pd.DataFrame(columns)
