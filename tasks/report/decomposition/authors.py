"""The authors' figures compared with ours, for networks of theirs (Badola et al., "Decomposing the Deep")."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.report.decomposition.results import DecompositionResults

# From the tables of the paper (arXiv:2112.07719); accuracies 0..1.
# A network counts as the authors' by model and outputs. Of theirs, ResNet-18 and 34 with 10 or 200 outputs stay out:
# such a network may be of any data; a cifar-resnet20 and 1,000 outputs of a torchvision model are of theirs.
CIFAR, IMAGENET = 10, 1000
RANK_BY, GROUP_BY = "abs", "label"


@dataclass(frozen=True)
class Authors:
    """One figure of the authors: model as layerlore names it, outputs, what, its value and its setting."""

    model: str
    n_outputs: int
    figure: str
    value: float
    k1: int = 0
    k2: int = 0
    epoch: int = 0
    note: str = ""


def _ratios() -> list[Authors]:
    """r_A on ImageNet at k1 = k2 = 50."""
    values = {
        **{"resnet50": 0.869, "resnet101": 0.897, "resnet152": 0.900, "wide_resnet50_2": 0.971},
        **{"wide_resnet101_2": 0.975, "densenet121": 0.886, "densenet169": 0.899, "densenet161": 0.899},
        **{"densenet201": 0.915, "efficientnet_b0": 0.852, "efficientnet_b1": 0.922, "efficientnet_b2": 0.883},
        **{"efficientnet_b3": 0.843},
    }
    note = "their A_f is below torchvision's: other preprocessing"
    return [Authors(model, IMAGENET, "ratio", value, 50, 50, note=note) for model, value in values.items()]


AUTHORS: tuple[Authors, ...] = (
    Authors("cifar-resnet20", CIFAR, "full", 0.9117, note="their code's notes say 91.71 %"),
    Authors("cifar-resnet20", CIFAR, "decomposed", 0.8859, 5, 5),
    Authors("cifar-resnet20", CIFAR, "decomposed", 0.8416, 5, 3),
    Authors("cifar-resnet20", CIFAR, "retrained", 0.9151, 5, 5, epoch=1),
    Authors("cifar-resnet20", CIFAR, "influential", 0.4897, 5, 5),
    Authors("cifar-resnet20", CIFAR, "others", 0.8224, 5, 5),
    Authors("resnet50", IMAGENET, "full", 0.7455),
    Authors("resnet50", IMAGENET, "decomposed", 0.647, 50, 50),
    Authors("resnet50", IMAGENET, "retrained", 0.7391, 50, 50, epoch=10, note="after about 10 epochs"),
    Authors("resnet50", IMAGENET, "influential", 0.1252, 50, 50),
    Authors("resnet50", IMAGENET, "others", 0.7440, 50, 50),
    *_ratios(),
    Authors("cifar-resnet20", CIFAR, "csg", 0.8809, 5, 5),
    Authors("cifar-resnet20", CIFAR, "std", 0.8809, 5, 5),
)
NAMES = {
    "full": "A_f",
    "decomposed": "A_d",
    "ratio": "r_A",
    "retrained": "A_d, whole network retrained",
    "influential": "noise N(0, 1) in the influential features",
    "others": "noise N(0, 1) in all others",
    "csg": "CSG training, accuracy with gates",
    "std": "CSG training, accuracy without gates",
}


def compare_authors(results: DecompositionResults) -> pd.DataFrame:
    """Compare our numbers with the authors' for each network of theirs.

    Parameters
    ----------
    results : of any networks

    Returns
    -------
    columns network, seed, figure, setting, authors, ours (NaN where not computed), difference, note
    """
    rows = []
    for _, network in results.networks.iterrows():
        mine = results.of(str(network["network"]), int(network["seed"]))
        for theirs in AUTHORS:
            if _is_theirs(network, theirs):
                ours = OURS[theirs.figure](mine, theirs)
                row = {"network": network["network"], "seed": network["seed"], "figure": NAMES[theirs.figure]}
                row |= {"setting": _setting(theirs), "authors": theirs.value, "ours": ours}
                rows.append(row | {"difference": ours - theirs.value, "note": theirs.note})
    columns = ["network", "seed", "figure", "setting", "authors", "ours", "difference", "note"]
    return pd.DataFrame(rows, columns=columns)


def _is_theirs(network: pd.Series, theirs: Authors) -> bool:
    """Whether model and outputs are theirs, and every output has images: on fewer classes accuracy is another thing."""
    same = str(network["model"]) == theirs.model and network["n_outputs"] == theirs.n_outputs
    return bool(same and network["n_classes"] == theirs.n_outputs)


def _setting(theirs: Authors) -> str:
    """Print k1, k2 and the epoch."""
    if theirs.figure in ("csg", "std"):
        return "training images"
    sizes = f"k1 = {theirs.k1}, k2 = {theirs.k2}" if theirs.k1 else ""
    return f"{sizes}, epoch {theirs.epoch}" if theirs.epoch else sizes


def _full(results: DecompositionResults, _: Authors) -> float:
    """Our A_f."""
    return _only(results.networks, "a_full")


def _cell(column: str, main: str) -> Callable[[DecompositionResults, Authors], float]:
    """Our number in the grid's cell, or that of the main setting where this is it."""

    def read(results: DecompositionResults, theirs: Authors) -> float:
        if _is_main(results, theirs):
            return _only(results.networks, main)
        if not _counts_alike(results):
            return float("nan")
        at = (results.grid["k1"].astype(str) == str(theirs.k1)) & (results.grid["k2"] == theirs.k2)
        return _only(results.grid[at], column)

    return read


def _retrained(results: DecompositionResults, theirs: Authors) -> float:
    """Our accuracy after the epoch, whole network; known where the main setting is theirs."""
    if not _is_main(results, theirs):
        return float("nan")
    rows = results.retraining
    return _only(rows[(rows["scope"] == "network") & (rows["epoch"] == theirs.epoch)], "accuracy")


def _noise(which: str) -> Callable[[DecompositionResults, Authors], float]:
    """Our accuracy with the authors' noise; known where the main setting is theirs."""

    def read(results: DecompositionResults, theirs: Authors) -> float:
        if not _is_main(results, theirs):
            return float("nan")
        rows = results.ablation
        at = (rows["noise"] == "standard") & (rows["scope"] == "label") & (rows["which"] == which)
        return _only(rows[at], "accuracy")

    return read


def _gated(column: str) -> Callable[[DecompositionResults, Authors], float]:
    """Our accuracy on the images that the sets were learned from; known where the main setting is theirs."""

    def read(results: DecompositionResults, theirs: Authors) -> float:
        if not _is_main(results, theirs):
            return float("nan")
        return _only(results.gates[results.gates["split"] == results.networks["learn"].iloc[0]], column)

    return read


def _is_main(results: DecompositionResults, theirs: Authors) -> bool:
    """Whether the setting that everything else uses is the authors'."""
    main = results.networks.iloc[0]
    return _counts_alike(results) and (str(main["k1"]), int(main["k2"])) == (str(theirs.k1), theirs.k2)


def _counts_alike(results: DecompositionResults) -> bool:
    """Whether features are ranked and grouped as the authors do."""
    main = results.networks.iloc[0]
    return (main["rank_by"], main["group_by"]) == (RANK_BY, GROUP_BY)


def _only(rows: pd.DataFrame, column: str) -> float:
    """The number in the first row, NaN without one."""
    return float(rows[column].iloc[0]) if len(rows) else float(np.nan)


OURS: dict[str, Callable[[DecompositionResults, Authors], float]] = {
    "full": _full,
    "decomposed": _cell("accuracy", "a_decomposed"),
    "ratio": _cell("ratio", "ratio"),
    "retrained": _retrained,
    "influential": _noise("influential"),
    "others": _noise("others"),
    "csg": _gated("csg_accuracy"),
    "std": _gated("std_accuracy"),
}
