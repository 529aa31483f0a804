"""Why results mean little: a network at chance, outputs without images. Sentences computed from the numbers."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from tasks.figures.views import in_percent

MAX_CAUTIONS = 6  # on a page


def at_chance(network: str, accuracy: float, chance: float, n_images: int) -> str:
    """Warn of a network that is hardly better than the most frequent class, "" for a better or an unknown one.

    Parameters
    ----------
    accuracy : on the images of the evaluation, 0..1
    chance : share of the most frequent class among them
    n_images : how many they are
    """
    known = n_images > 0 and math.isfinite(accuracy) and math.isfinite(chance)
    if not known or accuracy > chance + 2 * math.sqrt(chance * (1 - chance) / n_images):
        return ""
    return (
        f"{network} is right on {in_percent(accuracy)} % of the {n_images:,} images of its evaluation; always the most "
        f"frequent class would be right on {in_percent(chance)} %. So its answers mean little, and all below too."
    )


def outputs_without_images(network: str, n_outputs: int, n_classes: int) -> str:
    """Warn of outputs without images, "" where every output has some."""
    absent = n_outputs - n_classes
    if absent <= 0 or n_classes <= 0:
        return ""
    verb, of_them = ("has", "it") if absent == 1 else ("have", "them")
    return (
        f"{network} has {n_outputs:,} outputs, and the images are of {n_classes:,} of them: {absent:,} {verb} no "
        f"images, so nothing can be said of {of_them}. Without `data.NAME.classes`, folders count as the classes 0, 1, "
        "2 and so on of the network."
    )


def network_cautions(networks: pd.DataFrame, accuracy: str, n_images: str) -> Iterator[str]:
    """Yield the warnings of the networks of a page, each once.

    Parameters
    ----------
    networks : a row per network and seed: network, seed and, where known, chance (0..1), n_outputs, n_classes
    accuracy, n_images : names of the columns of the accuracy and of the number of images of the evaluation
    """
    several = "seed" in networks and networks["seed"].nunique() > 1
    for row in networks.to_dict("records"):
        name = f"{row['network']} (seed {row['seed']})" if several else str(row["network"])
        text = at_chance(
            name, _number(row.get(accuracy)), _number(row.get("chance")), int(_number(row.get(n_images), 0))
        )
        if text:
            yield text
    if {"n_outputs", "n_classes"} <= set(networks.columns):
        first = networks.drop_duplicates("network")
        for name, n_outputs, n_classes in zip(first["network"], first["n_outputs"], first["n_classes"], strict=True):
            text = outputs_without_images(str(name), int(_number(n_outputs, 0)), int(_number(n_classes, 0)))
            if text:
                yield text


def shortened(cautions: Iterator[str]) -> tuple[str, ...]:
    """Return at most `MAX_CAUTIONS` of them, and how many more there are."""
    found = list(dict.fromkeys(cautions))
    more = len(found) - MAX_CAUTIONS
    return (*found[:MAX_CAUTIONS], *((f"And {more} more of these warnings.",) if more > 0 else ()))


def _number(value: Any, unknown: float = math.nan) -> float:  # Any: a cell of a table
    """Return a cell as a number."""
    found = math.nan if value is None or pd.isna(value) else float(value)
    return found if math.isfinite(found) else unknown
