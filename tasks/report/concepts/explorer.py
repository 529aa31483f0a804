"""The neuron explorer: each neuron's words at each snapshot, its images, and when it became interpretable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.figures.overlay import Thumbnail, unique_thumbnails
from tasks.figures.views import spread_out
from tasks.report.blocks import script_json
from tasks.report.concepts.choices import Chooser
from tasks.report.concepts.exemplars import Place, exemplar_thumbnails, listed_exemplars, shown_exemplars
from tasks.report.concepts.groups import Group
from tasks.report.concepts.results import ConceptResults

NAMES = ("network", "seed", "detector", "layer")
MAX_NEURONS = 256  # of a layer under one detector
MAX_ALL = 6_000  # of all layers and detectors
MAX_WORDS = 5


@dataclass(frozen=True)
class Explorer:
    """What the explorer shows.

    Attributes
    ----------
    chooser : its choices
    data : for its script
    thumbnails : that it refers to
    images : digest, name and activation of each neuron's images
    notes : what is left out
    """

    chooser: Chooser
    data: dict[str, object]
    thumbnails: list[Thumbnail]
    images: dict[tuple[Place, int], list[list[str]]]
    notes: tuple[str, ...]

    @property
    def json(self) -> str:
        """The data as JSON that cannot end the script element around it."""
        return script_json(self.data)


def explorer_of(results: ConceptResults, groups: Sequence[Group]) -> Explorer | None:
    """Collect what the explorer shows; None where no neuron has words.

    Parameters
    ----------
    results : for their pictures and exemplars
    groups : the rows by network, seed and detector
    """
    layers = [(group, layer, rows) for group in groups for layer, rows in group.by_layer("words")]
    if not layers:
        return None
    most = max(1, min(MAX_NEURONS, MAX_ALL // len(layers)))
    words: dict[str, int] = {}
    neurons: dict[Place, set[int]] = {}
    made, notes = [], []
    n_known = n_shown = 0
    for group, layer, rows in layers:
        known = sorted(int(n) for n in rows["neuron"].unique())
        shown = {known[i] for i in spread_out(len(known), most)}
        n_known, n_shown = n_known + len(known), n_shown + len(shown)
        place = (group.network, group.seed, layer)  # the images are the same under every detector
        neurons.setdefault(place, set()).update(shown)
        shown_rows = rows[rows["neuron"].isin(list(shown))]
        where = {"place": list(neurons).index(place), "at": list(place)}
        made.append(_layer(group, layer, shown_rows, words) | where)
    if n_shown < n_known:
        text = f"At most {most} neurons of a layer under one detector are in the explorer, evenly spread"
        notes.append(f"{text}: {n_shown:,} of {n_known:,}.")
    exemplars = shown_exemplars(results.exemplars, neurons)
    thumbs, left = exemplar_thumbnails(exemplars, results.pictures)
    if left:
        notes.append(f"{left:,} images are left out to keep the page small.")
    places = {place: i for i, place in enumerate(neurons)}
    images = listed_exemplars(exemplars, thumbs)
    by_key = {f"{places[place]}:{neuron}": listed for (place, neuron), listed in images.items()}
    data = {"words": list(words), "groups": made, "images": by_key}
    chooser = Chooser("explorer", NAMES, tuple((*group.key, layer) for group, layer, _ in layers), start=_start(made))
    return Explorer(chooser, data, unique_thumbnails(thumbs.values()), images, tuple(notes))


def when_held(flags: Sequence[bool], labels: Sequence[str]) -> str:
    """Say at which snapshots a neuron was interpretable.

    Parameters
    ----------
    flags : whether it was, by snapshot
    labels : names of the snapshots
    """
    if not any(flags):
        return "It does not hold a concept at any snapshot." if len(flags) > 1 else "It does not hold a concept."
    if len(flags) == 1:
        return "It holds a concept."
    if all(flags):
        return "It holds a concept at every snapshot."
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(flags, int), 0]))
    runs = [
        f"at {labels[start]} only"
        if stop - start == 1 and stop < len(flags)
        else f"from {labels[start]} to the end"
        if stop == len(flags)
        else f"from {labels[start]} to {labels[stop - 1]}"
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]
    return f"It holds a concept {', and again '.join(runs)}."


def _layer(group: Group, layer: str, rows: pd.DataFrame, words: dict[str, int]) -> dict[str, object]:
    """Return one layer: its snapshots, and each neuron's words; new words are added to `words`."""
    labels = group.labels
    concepts = group.tables["concepts"]
    mine = concepts[concepts["layer"] == layer]
    held = {
        (int(n), int(s)): bool(flag)
        for n, s, flag in zip(mine["neuron"], mine["snapshot"], mine["interpretable"], strict=True)
    }
    listed: dict[tuple[int, int], list[list[object]]] = {}
    columns = (rows.sort_values("rank", kind="stable")[name] for name in ("neuron", "snapshot", "word", "similarity"))
    for neuron, snapshot, word, similarity in zip(*columns, strict=True):
        entry: list[object] = [words.setdefault(str(word), len(words)), _short(float(similarity))]
        listed.setdefault((int(neuron), int(snapshot)), []).append(entry)
    neurons = []
    for neuron in sorted({neuron for neuron, _ in listed}):
        flags = [held.get((neuron, snapshot), False) for snapshot in labels]
        at = [listed.get((neuron, snapshot), [])[:MAX_WORDS] for snapshot in labels]
        when = when_held(flags, list(labels.values()))
        neurons.append({"n": neuron, "when": when, "held": [int(flag) for flag in flags], "words": at})
    return {"of": group.title, "layer": layer, "snapshots": list(labels.values()), "neurons": neurons}


def _start(made: Sequence[Mapping[str, object]]) -> int:
    """Start with the last layer of the first group: it holds the most complex concepts."""
    return max(i for i, layer in enumerate(made) if layer["of"] == made[0]["of"])


def _short(value: float) -> float | None:
    """Return a similarity with four digits, None unknown."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
