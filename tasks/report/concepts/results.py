"""The results that the page of the concepts question shows: frozen tables and images, nothing from a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from tasks.report.concepts.paradigms import Paradigm
from tasks.report.concepts.taught import Taught
from tasks.report.findings import Finding
from tasks.report.pages import Image

__all__ = ["COLUMNS", "ConceptFacts", "ConceptResults"]

OF = ("network", "seed")
AT = (*OF, "snapshot", "layer", "detector")
COLUMNS: dict[str, tuple[str, ...]] = {  # of each table; whatever else a table may hold stays out of the site
    "monitor": (
        *("network", "seed", "snapshot", "step", "layer", "detector", "d_anchor", "mean_pairwise", "interpretable"),
        *("distinct", "label", "neurons", "dead", "null_interpretable", "tau", "accuracy", "loss"),
    ),
    "concepts": (
        *("network", "seed", "snapshot", "layer", "neuron", "detector", "word", "category", "similarity"),
        "interpretable",
    ),
    "words": (*OF, "snapshot", "layer", "neuron", "detector", "rank", "word", "category", "similarity"),
    "categories": (*AT, "category", "neurons"),
    "tau_curves": (*AT, "tau", "interpretable", "null"),
    "common": (*AT, "word", "category", "neurons"),
    "changes": (*OF, "layer", "detector", "neuron", "before", "after", "change", "word"),
    "plane": (*AT, "neuron", "x", "y", "tracked", "interpretable", "word", "category"),
    "anchors": ("word", "x", "y"),
    "anchor_distances": (*AT, "anchor", "neuron", "tracked", "distance"),
    "truth": ("detector", "check", *OF, "layer", "value", "baseline", "n"),
    "temperatures": (*AT, "temperature", "d_anchor"),
    "exemplars": (*OF, "layer", "neuron", "rank", "sample_id", "activation", "picture"),
    "accuracies": (*OF, "accuracy", "chance", "n_evaluate"),
    "attacked": (*OF, "snapshot", "clean", "robust", "images"),
}


def _table(name: str) -> pd.DataFrame:
    """Return a table without rows."""
    return pd.DataFrame({column: pd.Series(dtype="object") for column in COLUMNS[name]})


@dataclass(frozen=True)
class ConceptFacts:
    """What the detectors looked at.

    Attributes
    ----------
    probing : name of the probing set
    n_images : of the probing set
    n_words : of the word list
    image_text : the image-text model in words, "" where no detector needs one
    detectors : parameters in words by name of the detector, in the order of the page
    privacy : which images may be shown, in words
    attack : the attack in words, "" without one
    paradigms : by network, how it is trained and what it is compared with
    """

    probing: str
    n_images: int
    n_words: int
    image_text: str = ""
    detectors: Mapping[str, str] = field(default_factory=dict)
    privacy: str = ""
    attack: str = ""
    paradigms: Mapping[str, Paradigm] = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptResults:
    """Results of the question "which concepts do neurons hold, and when in training did they come?".

    Rows of each network and seed are in order of snapshot and depth. An empty table means that this was not asked
    for; the page then has nothing of it. Snapshots are counted from 0 in each network and seed. The name of a
    detector includes its word list, where there are several.

    Attributes
    ----------
    facts : what the detectors looked at
    monitor : network (str), seed, snapshot, step (int, -1 unknown), label (str, "step 120", "epoch_3"), layer,
        detector (str), neurons, dead (int), d_anchor, mean_pairwise, interpretable, null_interpretable (int: neurons
        that remain under the null), distinct (int), tau, accuracy (0..1), loss (NaN unknown)
    concepts : the best word of each neuron. network, seed, snapshot, layer, neuron (int), detector, word, category,
        similarity, interpretable (bool)
    words : the best few words of the neurons to be shown. network, seed, snapshot, layer, neuron, detector, rank (int),
        word, category, similarity
    categories : network, seed, snapshot, layer, detector, category, neurons (interpretable ones)
    tau_curves : network, seed, snapshot, layer, detector, tau, interpretable, null (neurons)
    common : network, seed, snapshot, layer, detector, word, category, neurons; most first
    changes : network, seed, layer, detector, neuron, before, after (snapshots), change ("became", "ceased"), word
    plane : network, seed, snapshot, layer, detector, neuron, x, y, tracked, interpretable (bool), word, category
    anchors : word, x, y, in the space of `plane`
    anchor_distances : network, seed, snapshot, layer, detector, anchor (str), neuron (the nearest, or a tracked one),
        tracked (bool), distance
    truth : detector, check ("planted top-1", "planted top-5", "detectors", "agreement: same word",
        "agreement: cosine", "captions: BLEU", "captions: common words", "captions: labels with known words"),
        network, seed, layer ("", -1, "" where it is not of a network), value, baseline (the null, NaN none), n
    temperatures : network, seed, snapshot, layer, detector, temperature, d_anchor
    exemplars : network, seed, layer, neuron, rank, sample_id (-1 not to be named), activation, picture (key into
        `pictures`)
    pictures : (h, w, 3) uint8 images with the region outlined; only those that may be shown
    observations : further findings; the page makes those on the paper's observations from the tables
    attacked : network, seed, snapshot, clean, robust (0..1: accuracy on images as they are, and under attack),
        images
    taught : who taught neurons their concepts, where question 4 is asked of the same network
    titles : what a layer is called on the page, by network and name
    accuracies : network, seed, accuracy (0..1, of a network that the run trained), chance (share of the most frequent
        class), n_evaluate (held-out images)
    """

    facts: ConceptFacts
    monitor: pd.DataFrame
    concepts: pd.DataFrame = field(default_factory=lambda: _table("concepts"))
    words: pd.DataFrame = field(default_factory=lambda: _table("words"))
    categories: pd.DataFrame = field(default_factory=lambda: _table("categories"))
    tau_curves: pd.DataFrame = field(default_factory=lambda: _table("tau_curves"))
    common: pd.DataFrame = field(default_factory=lambda: _table("common"))
    changes: pd.DataFrame = field(default_factory=lambda: _table("changes"))
    plane: pd.DataFrame = field(default_factory=lambda: _table("plane"))
    anchors: pd.DataFrame = field(default_factory=lambda: _table("anchors"))
    anchor_distances: pd.DataFrame = field(default_factory=lambda: _table("anchor_distances"))
    truth: pd.DataFrame = field(default_factory=lambda: _table("truth"))
    temperatures: pd.DataFrame = field(default_factory=lambda: _table("temperatures"))
    exemplars: pd.DataFrame = field(default_factory=lambda: _table("exemplars"))
    pictures: Mapping[str, Image] = field(default_factory=dict)
    observations: tuple[Finding, ...] = ()
    attacked: pd.DataFrame = field(default_factory=lambda: _table("attacked"))
    taught: Taught = field(default_factory=Taught)
    titles: Mapping[tuple[str, str], str] = field(default_factory=dict)
    accuracies: pd.DataFrame = field(default_factory=lambda: _table("accuracies"))

    def titled(self) -> "ConceptResults":
        """Return the results with each layer called by its title."""
        tables: dict[str, Any] = {}  # Any: fields of several types
        for name, columns in COLUMNS.items():
            table: pd.DataFrame = getattr(self, name)
            if "layer" in columns and len(table) and self.titles:
                pairs = zip(table["network"], table["layer"], strict=True)
                tables[name] = table.assign(layer=[self.titles.get((str(n), str(layer)), layer) for n, layer in pairs])
        return replace(self, **tables)

    def completed(self) -> "ConceptResults":
        """Return the results with every column in every table; an absent one is unknown, such a category is other."""
        tables = {name: getattr(self, name).reindex(columns=list(columns)) for name, columns in COLUMNS.items()}
        for name, columns in COLUMNS.items():
            if "category" in columns:
                known = tables[name]["category"].astype(object)
                tables[name] = tables[name].assign(category=known.where(known.notna(), "other"))
        seeds = pd.to_numeric(tables["truth"]["seed"], errors="coerce")
        tables["truth"] = tables["truth"].assign(seed=seeds.where(seeds >= 0).astype("Int64"))
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in COLUMNS}
        return ConceptResults(**tables, **rest)
