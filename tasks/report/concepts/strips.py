"""The most interpretable neurons with their words and images: what a single snapshot shows instead of a course."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.figures.views import compact
from tasks.report.blocks import Shown
from tasks.report.concepts.answers import fullest_layer
from tasks.report.concepts.exemplars import Place
from tasks.report.concepts.groups import Group
from tasks.report.formats import minus

MAX_NEURONS = 6
MAX_IMAGES = 4  # of each
Images = Mapping[tuple[Place, int], list[list[str]]]


@dataclass(frozen=True)
class Held:
    """A neuron: its word, how similar it is, and the images that activate it most."""

    neuron: int
    word: str
    similarity: str
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class Strip:
    """The most interpretable neurons of the layer that holds most, of one network, seed and detector."""

    neurons: tuple[Held, ...]
    caption: str


def strip_of(group: Group, images: Images) -> Strip:
    """Choose the neurons with the highest similarity, each word once before any comes twice.

    Parameters
    ----------
    group : the rows of one network, seed and detector
    images : digest ("" without a picture), name and activation of each neuron's images; neurons without a picture are
        shown only where none has one
    """
    when = " There is one snapshot, so when the concepts came is not known." if len(group.labels) == 1 else ""
    row = fullest_layer(group.tables["monitor"])
    if row is None:
        return Strip((), f"No neuron holds a concept.{when}")
    layer, concepts = str(row["layer"]), group.tables["concepts"]
    mine = concepts[(concepts["layer"] == row["layer"]) & (concepts["snapshot"] == row["snapshot"])]
    best = mine[mine["interpretable"].astype(bool)]
    pictures = {int(n): _pictures(group, layer, int(n), images) for n in best["neuron"]}
    some = [neuron for neuron, shown in pictures.items() if shown]
    neurons = tuple(
        Held(int(neuron), str(word), minus(compact(float(similarity))), pictures[int(neuron)])
        for neuron, word, similarity in _most(best[best["neuron"].isin(some)] if some else best)
    )
    if not neurons:
        return Strip((), f"The results do not name the words of the neurons.{when}")
    among = f", of the {len(some)} whose images are here" if 0 < len(some) < len(best) else ""
    seen = " The images that activate each one most; outlined: where it is active." if some else ""
    return Strip(neurons, f"The most interpretable neurons of {layer}{among}.{seen}{when}")


def _most(best: pd.DataFrame) -> list[tuple[int, str, float]]:
    """Return neuron, word and similarity of the first neurons."""
    ranked = best.sort_values("similarity", ascending=False, kind="stable")
    turn = ranked.groupby("word").cumcount()
    chosen = ranked.assign(turn=turn).sort_values("turn", kind="stable").head(MAX_NEURONS)
    return list(zip(chosen["neuron"], chosen["word"], chosen["similarity"], strict=True))


def _pictures(group: Group, layer: str, neuron: int, images: Images) -> tuple[Shown, ...]:
    """Return the thumbnails of a neuron's most activating images."""
    listed = images.get(((group.network, group.seed, layer), neuron), [])
    shown = [Shown(digest, f"{name}, activation {amount}") for digest, name, amount in listed if digest]
    return tuple(shown[:MAX_IMAGES])
