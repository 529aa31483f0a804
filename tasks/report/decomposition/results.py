"""The results that the page of the decomposition question shows: frozen tables and images, nothing from a store."""

from dataclasses import dataclass, field, fields

import pandas as pd

from tasks.figures.decomposition.index_histogram import Histogram
from tasks.figures.decomposition.overlap_map import Overlap
from tasks.report.pages import Image

__all__ = ["COLUMNS", "DecompositionResults", "FeatureMapRow", "Histogram", "Overlap", "TopImages"]

COLUMNS: dict[str, tuple[str, ...]] = {  # of each table; whatever else a table may hold stays out of the site
    "networks": (
        *("network", "seed", "model", "depth", "n_classes", "n_outputs", "n_features", "k1", "k2"),
        *(
            "rank_by",
            "group_by",
            "n_learn",
            "n_evaluate",
            "learn",
            "evaluate",
            "a_full",
            "a_decomposed",
            "ratio",
            "agreement",
            "chance",
        ),
        *("ties", "signed", "overlap_mean", "union", "preprocessing", "head_share", "macs_full", "macs_decomposed"),
    ),
    "grid": ("network", "seed", "k1", "k2", "accuracy", "ratio", "agreement"),
    "controls": ("network", "seed", "method", "k", "draws", "accuracy", "accuracy_std", "agreement", "ratio"),
    "coverage": ("network", "seed", "class_name", "n", "l1_share", "histogram_share", "logit_share", "own_top_share"),
    "classes": ("network", "seed", "class_name", "a_full", "a_decomposed", "tie", "indices", "counts"),
    "sample_need": ("network", "seed", "n_images", "overlap", "accuracy"),
    "ablation": ("network", "seed", "noise", "scope", "which", "draws", "accuracy", "accuracy_std"),
    "retraining": ("network", "seed", "scope", "epoch", "accuracy", "loss"),
    "head_times": ("network", "seed", "batch", "dense_ms", "decomposed_ms"),
    "gates": (*("network", "seed", "split", "std_accuracy", "csg_accuracy", "mean_gate", "overlap", "a_decomposed"),),
    "features": (
        *("network", "seed", "label", "class_name", "rank", "feature", "count", "share", "weight", "n_classes"),
        *("classes", "sample_ids"),
    ),
}


def _table(name: str) -> pd.DataFrame:
    """Return a table without rows."""
    return pd.DataFrame({column: pd.Series(dtype="object") for column in COLUMNS[name]})


@dataclass(frozen=True)
class FeatureMapRow:
    """Where in an image the features are: of all, of others and of the influential ones.

    Attributes
    ----------
    network : which network
    image : (H, W, 3) uint8
    sample_id : running number in the data set
    split : of the data set; a row of a split that may hold training images is shown with training_images "show" only
    true_class, predicted : class names
    all, other, influential : (H, W, 3) uint8, the image with the mean of these maps over it
    """

    network: str
    image: Image
    sample_id: int
    split: str
    true_class: str
    predicted: str
    all: Image
    other: Image
    influential: Image


@dataclass(frozen=True)
class TopImages:
    """The images that activate the features of a network most.

    Attributes
    ----------
    network, seed : which network
    split : of the data set
    held_out : whether no network and no set of features learned from this split
    rows : feature, rank (from 1), sample_id, picture (index in `pictures`) (int); class_name (str); value; top, left,
        bottom, right (0..1: where in the image the feature is active; the whole image where that is not known)
    pictures : (H, W, 3) uint8 each; empty where the report must not show them
    """

    network: str
    seed: int
    split: str
    held_out: bool
    rows: pd.DataFrame
    pictures: tuple[Image, ...]


@dataclass(frozen=True)
class DecompositionResults:
    """Results of the question "which few features decide each class?".

    An empty table or tuple means that this was not asked for; the page then has nothing of it.

    Attributes
    ----------
    networks : a row per network and seed. network, model, k1 (as asked, such as "5" or "coverage 0.9"), rank_by,
        group_by, learn, evaluate (splits), preprocessing (str); seed, depth (layers with weights), n_classes (with
        images in `learn`), n_outputs (of the head), n_features, k2, n_learn, n_evaluate (images), ties (classes with
        a tie at the cut), union (features in any set), macs_full, macs_decomposed (multiply-adds per image of the
        head) (int); a_full, a_decomposed, agreement, overlap_mean (of two classes), head_share (of the whole
        network's multiply-adds), chance (share of the most frequent class in `evaluate`) (0..1); ratio (r_A);
        signed (bool: some feature is negative)
    grid : network, seed, k1 (str), k2 (int), accuracy, agreement (0..1), ratio
    controls : network, seed, method ("histogram" is Algorithm 1), k, draws (int), accuracy, accuracy_std (over
        draws), agreement (0..1), ratio
    coverage : network, seed, class_name, n (images), l1_share, histogram_share, logit_share (what the set of the class
        holds of the l1 norm, of the histogram, of the positive contribution to the own logit), own_top_share (of the
        l1 norm, held by each image's own k1 largest); 0..1, means over the images of the class
    classes : network, seed, class_name, a_full, a_decomposed (0..1), tie (bool), indices, counts (str, "3, 17, 60")
    sample_need : network, seed, n_images (of each class), overlap (mean share of the full sets found), accuracy (0..1)
    ablation : network, seed, noise ("standard", "zero", "feature_moments"), scope ("label", "predicted", "union"),
        which ("influential", "others", "equal-size", this only where there are as many others), draws (int), accuracy,
        accuracy_std (0..1)
    retraining : network, seed, scope ("head", "network"), epoch (0 before), accuracy (0..1), loss (NaN at 0)
    head_times : network, seed, batch (int), dense_ms, decomposed_ms (medians)
    gates : network, seed, split, std_accuracy, csg_accuracy, mean_gate, overlap (share of the sets from the largest
        gates that Algorithm 1 has too), a_decomposed (with the gates' sets) (0..1)
    features : network, seed (the first of each network), label (number of the class), class_name, rank (from 1),
        feature, count (images of the class in which the feature is among the k1 largest), share (of the class's
        images), weight (in the class's logit), n_classes, classes (whose sets have it, "cat, dog"), sample_ids (of
        the most activating images, "12, 3")
    histograms : relative index frequencies of a few classes
    overlaps : of the sets of every two classes
    gallery : rows of feature maps
    refused : network and reason, where feature maps could not be made
    top_images : of the first seed of each network
    """

    networks: pd.DataFrame
    grid: pd.DataFrame = field(default_factory=lambda: _table("grid"))
    controls: pd.DataFrame = field(default_factory=lambda: _table("controls"))
    coverage: pd.DataFrame = field(default_factory=lambda: _table("coverage"))
    classes: pd.DataFrame = field(default_factory=lambda: _table("classes"))
    sample_need: pd.DataFrame = field(default_factory=lambda: _table("sample_need"))
    ablation: pd.DataFrame = field(default_factory=lambda: _table("ablation"))
    retraining: pd.DataFrame = field(default_factory=lambda: _table("retraining"))
    head_times: pd.DataFrame = field(default_factory=lambda: _table("head_times"))
    gates: pd.DataFrame = field(default_factory=lambda: _table("gates"))
    features: pd.DataFrame = field(default_factory=lambda: _table("features"))
    histograms: tuple[Histogram, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    gallery: tuple[FeatureMapRow, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    top_images: tuple[TopImages, ...] = ()

    def of(self, network: str, seed: int) -> "DecompositionResults":
        """Return what belongs to one network and seed; feature maps have no seed."""
        tables = {}
        for name in COLUMNS:
            frame: pd.DataFrame = getattr(self, name)
            tables[name] = frame[(frame["network"] == network) & (frame["seed"] == seed)]
        return DecompositionResults(
            **tables,
            histograms=tuple(h for h in self.histograms if (h.network, h.seed) == (network, seed)),
            overlaps=tuple(o for o in self.overlaps if (o.network, o.seed) == (network, seed)),
            gallery=tuple(row for row in self.gallery if row.network == network),
            refused=tuple(each for each in self.refused if each[0] == network),
            top_images=tuple(each for each in self.top_images if (each.network, each.seed) == (network, seed)),
        )

    def completed(self) -> "DecompositionResults":
        """Return the results with every column in every table; an absent one is unknown throughout."""
        tables = {name: getattr(self, name).reindex(columns=list(columns)) for name, columns in COLUMNS.items()}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in COLUMNS}
        return DecompositionResults(**tables, **rest)
