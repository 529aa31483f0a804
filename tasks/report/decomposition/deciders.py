"""The opening of the page: each class with the few features that decide it, their images and other classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.figures.views import compact, in_percent
from tasks.report import formats
from tasks.report.blocks import script_json
from tasks.report.decomposition.claims import ENOUGH
from tasks.report.decomposition.results import DecompositionResults, TopImages
from tasks.report.formats import NBSP

BLOCK = 20  # classes shown at a time
MAX_CARDS = 10  # features shown of a class
MAX_NETWORKS = 12
MAX_THUMBNAIL_BYTES = 4_000_000  # of all data URIs of these images, shared equally by the networks
PIXELS = 64  # of a thumbnail, longer side
RANKS = {"value": " by value", "contribution": " by contribution to the class's logit"}  # else by magnitude
GROUPS = {"prediction": "predicted as"}  # else images of the class

Listed = dict[int, list[list[object]]]


@dataclass(frozen=True)
class Deciders:
    """What the opening shows.

    Attributes
    ----------
    networks : names
    answers : the page's title answered in a sentence, for each network
    data : for the script
    thumbnails : that it refers to
    notes : what is left out
    """

    networks: tuple[str, ...]
    answers: tuple[str, ...]
    data: list[dict[str, object]]
    thumbnails: list[Thumbnail]
    notes: tuple[str, ...]

    @property
    def json(self) -> str:
        """The data as JSON that cannot end the script element around it."""
        return script_json({"block": BLOCK, "networks": self.data})


def deciders_of(results: DecompositionResults) -> Deciders | None:
    """Collect what the opening shows; None where the features of the classes are not known.

    Parameters
    ----------
    results : what the report may show
    """
    keys = list(dict.fromkeys(zip(results.features["network"], results.features["seed"], strict=True)))
    parts = [results.of(str(network), int(seed)) for network, seed in keys[:MAX_NETWORKS]]
    if not parts:
        return None
    answers, data, notes = [], [], _cap_notes(parts, len(keys))
    thumbnails: list[Thumbnail] = []
    for part in parts:
        network = part.networks.iloc[0]
        images = part.top_images[0] if part.top_images else None
        thumbs = _thumbnails(images, MAX_THUMBNAIL_BYTES // len(parts))
        listed = {} if images is None else _listed(images, thumbs)
        thumbnails += thumbs.values()
        answers.append(answer(network, part.features))
        data.append(_network(network, part.features, listed, images) | {"answer": answers[-1]})
        pictured = {feature for feature, shown in listed.items() if any(image[0] for image in shown)}
        left = part.features["feature"].nunique() - len(pictured)
        if images is not None and images.pictures and left:
            notes.append(f"{network['network']}: {left:,} features have no pictures here, to keep the page small.")
    names = tuple(str(part.networks["network"].iloc[0]) for part in parts)
    return Deciders(names, tuple(answers), data, unique_thumbnails(thumbnails), tuple(notes))


def answer(network: pd.Series, features: pd.DataFrame) -> str:
    """Answer the page's title for one network.

    Parameters
    ----------
    network : its row of `networks`
    features : its rows of `features`
    """
    k2, d, ratio = int(network["k2"]), int(network["n_features"]), float(network["ratio"])
    users = features.groupby("feature")["n_classes"].first()
    shared = int((users > 1).sum())
    verb = "is" if shared == 1 else "are"
    used = f"{shared:,} of the {len(users):,} features in use {verb} shared by several classes."
    if np.isnan(ratio):
        return f"{k2} of {d:,} features stand for each class; {used}"
    held = f"{formats.share(ratio)} of its accuracy"
    if ratio < ENOUGH:
        return f"{k2} of {d:,} features do not decide a class: with them alone the network keeps only {held}. {used}"
    return f"{k2} of {d:,} features decide each class: with them alone the network keeps {held}. {used}"


def _cap_notes(parts: Sequence[DecompositionResults], n_networks: int) -> list[str]:
    """Say which networks and features have no card, and which images are kept out."""
    notes = []
    if n_networks > len(parts):
        notes.append(f"The first {len(parts)} of {n_networks} networks have cards.")
    if (most := max(int(part.features["rank"].max()) for part in parts)) > MAX_CARDS:
        notes.append(f"Of the {most} features of each class the first {MAX_CARDS} have a card; the tables have all.")
    hidden = dict.fromkeys(images.split for part in parts for images in part.top_images if not images.pictures)
    notes += [f"Images of split {split} are not shown: report.training_images keeps them out." for split in hidden]
    return notes


def _network(network: pd.Series, features: pd.DataFrame, listed: Listed, images: TopImages | None) -> dict[str, object]:
    """Return one network for the script: its features, and its classes with their cards."""
    numbers = {int(feature): i for i, feature in enumerate(dict.fromkeys(features["feature"]))}
    labels = {int(label): i for i, label in enumerate(dict.fromkeys(features["label"]))}
    users: dict[int, list[list[int]]] = {feature: [] for feature in numbers}
    cards: list[list[list[object]]] = [[] for _ in labels]
    columns = (features[name] for name in ("label", "feature", "rank", "share", "weight"))
    for label, feature, rank, share, weight in zip(*columns, strict=True):
        users[int(feature)].append([labels[int(label)], int(rank)])
        if rank <= MAX_CARDS:
            cards[labels[int(label)]].append([numbers[int(feature)], *_amounts(float(share), float(weight))])
    named = features.drop_duplicates("label")["class_name"].astype(str)
    return {
        "name": str(network["network"]),
        "classes": [[name, shown] for name, shown in zip(named, cards, strict=True)],
        "features": [[feature, users[feature], listed.get(feature, [])] for feature in numbers],
        **dict(zip(("counted", "among"), _counted(network), strict=True)),
        "of": f"{GROUPS.get(str(network['group_by']), 'of')} the class, of split {network['learn']}",
        "shown": "" if images is None else images.split,
    }


def _amounts(share: float, weight: float) -> list[object]:
    """Return share in words and as a number, weight in words, and whether it is negative; unknown ones as a dash."""
    percent = f"{in_percent(share, 0)}{NBSP}%" if np.isfinite(share) else formats.MISSING
    signed = formats.signed(weight) if np.isfinite(weight) else formats.MISSING
    return [percent, round(float(np.nan_to_num(share)), 3), signed, int(weight < 0)]


def _counted(network: pd.Series) -> tuple[str, str]:
    """Say which of an image's features count, for a card and for the legend."""
    k1, by = str(network["k1"]), RANKS.get(str(network["rank_by"]), "")
    if k1.startswith("coverage"):
        return "counted", f"one of the largest{by}, which together hold the share that k1 names"
    return ("largest", f"the largest{by}") if k1 == "1" else (f"top {k1}", f"one of the {k1} largest{by}")


def _thumbnails(images: TopImages | None, room: int) -> dict[int, Thumbnail]:
    """Make thumbnails in the order of the features while they fit, by index of the picture."""
    made: dict[int, Thumbnail] = {}
    if images is None or not images.pictures:
        return made
    for picture in dict.fromkeys(int(index) for index in images.rows["picture"]):
        thumb = thumbnail(images.pictures[picture], PIXELS)
        room -= len(thumb.uri)
        if room < 0:
            break
        made[picture] = thumb
    return made


def _listed(images: TopImages, thumbs: Mapping[int, Thumbnail]) -> Listed:
    """List each feature's images: digest ("" without a picture), width, height, id, class, value, box in pixels."""
    listed: Listed = {}
    names = ("feature", "sample_id", "class_name", "value", "picture", "top", "left", "bottom", "right")
    for feature, sample, name, value, picture, *edges in zip(*(images.rows[each] for each in names), strict=True):
        thumb = thumbs.get(int(picture))
        size = ("", 0, 0) if thumb is None else (thumb.digest, thumb.width, thumb.height)
        top, left, bottom, right = (float(edge) for edge in edges)
        part = (bottom - top) * (right - left) < 1
        box = [left * size[1], top * size[2], (right - left) * size[1], (bottom - top) * size[2]] if part else []
        entry: list[object] = [*size, int(sample), str(name), formats.minus(compact(float(value)))]
        listed.setdefault(int(feature), []).append([*entry, [round(each, 2) for each in box]])
    return listed
