"""The most activating images of neurons: thumbnails while they fit, and what is said of each."""

from collections.abc import Collection, Mapping

import pandas as pd

from tasks.figures.overlay import Thumbnail, thumbnail
from tasks.figures.views import compact
from tasks.report.formats import minus
from tasks.report.pages import Image

MAX_EXEMPLARS = 8  # of a neuron
MAX_THUMBNAIL_BYTES = 6_000_000  # of all data URIs of the exemplars
Place = tuple[str, str, str]  # network, seed, layer


def shown_exemplars(exemplars: pd.DataFrame, neurons: Mapping[Place, Collection[int]]) -> pd.DataFrame:
    """Keep the highest ranks of the neurons that are shown: at most `MAX_EXEMPLARS` of each, by rank.

    Parameters
    ----------
    exemplars : as `ConceptResults` describes them
    neurons : those that are shown, by network, seed and layer
    """
    places = zip(exemplars["network"], exemplars["seed"], exemplars["layer"], exemplars["neuron"], strict=True)
    keep = [int(n) in neurons.get((str(network), str(seed), str(layer)), ()) for network, seed, layer, n in places]
    ranked = exemplars[pd.Series(keep, index=exemplars.index, dtype=bool)].sort_values("rank", kind="stable")
    return ranked[ranked.groupby(["network", "seed", "layer", "neuron"]).cumcount() < MAX_EXEMPLARS]


def exemplar_thumbnails(exemplars: pd.DataFrame, pictures: Mapping[str, Image]) -> tuple[dict[str, Thumbnail], int]:
    """Make thumbnails in order of rank while they fit into `MAX_THUMBNAIL_BYTES`.

    Returns
    -------
    thumbnails by key of the picture, and the number of pictures that did not fit
    """
    keys = [key for key in exemplars["picture"].unique() if key in pictures]
    made: dict[str, Thumbnail] = {}
    room = MAX_THUMBNAIL_BYTES
    for i, key in enumerate(keys):
        thumb = thumbnail(pictures[key])
        if len(thumb.uri) > room:  # none after it either: which are shown should go by rank alone
            return made, len(keys) - i
        made[key] = thumb
        room -= len(thumb.uri)
    return made, 0


def listed_exemplars(
    exemplars: pd.DataFrame, thumbs: Mapping[str, Thumbnail]
) -> dict[tuple[Place, int], list[list[str]]]:
    """List digest ("" without an image), name and activation of each neuron's exemplars, by place and neuron."""
    listed: dict[tuple[Place, int], list[list[str]]] = {}
    names = ("network", "seed", "layer", "neuron", "sample_id", "activation", "picture")
    for network, seed, layer, neuron, sample_id, activation, picture in zip(
        *(exemplars[name] for name in names), strict=True
    ):
        thumb = thumbs.get(picture)
        named = not pd.isna(sample_id) and sample_id >= 0
        if thumb is None and not named:
            continue
        name = f"image {int(sample_id)}" if named else "image of the probing set"
        entry = ["" if thumb is None else thumb.digest, name, minus(compact(float(activation)))]
        listed.setdefault(((str(network), str(seed), str(layer)), int(neuron)), []).append(entry)
    return listed
