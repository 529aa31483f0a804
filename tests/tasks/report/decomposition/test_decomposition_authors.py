"""The authors' figures compared with ours: only where network and setting are theirs."""

import numpy as np
import pytest

from tasks.report.decomposition.authors import compare_authors
from tests.tasks.report.decomposition.decomposed_network import frame, noise, page_of, retrained

IMAGENET: dict[str, object] = {"model": "wide_resnet50_2", "n_classes": 1000, "n_outputs": 1000}
IMAGENET |= {"k1": "50", "k2": 50, "n_features": 2048, "ratio": 0.96}


def test_the_authors_figures_stand_beside_ours_where_the_network_is_theirs() -> None:
    network = {"model": "cifar-resnet20", "a_full": 0.92, "a_decomposed": 0.89}
    tables = {
        "grid": frame({"k1": ["5", "5"], "k2": [5, 3], "accuracy": [0.1, 0.85], "ratio": 0.9}),
        "ablation": noise(0.5, 0.8, 0.9),
        "retraining": retrained(0.9, "network"),
        "gates": frame({"split": ["val", "train"], "std_accuracy": [0.1, 0.87], "csg_accuracy": [0.1, 0.88]}),
    }
    compared = compare_authors(page_of(network, **tables))
    assert list(zip(compared["figure"], compared["authors"], compared["ours"], strict=True)) == [
        ("A_f", 0.9117, 0.92),
        ("A_d", 0.8859, 0.89),  # of the main setting
        ("A_d", 0.8416, 0.85),  # of the grid
        ("A_d, whole network retrained", 0.9151, 0.82),  # after one epoch
        ("noise N(0, 1) in the influential features", 0.4897, 0.5),
        ("noise N(0, 1) in all others", 0.8224, 0.8),
        ("CSG training, accuracy with gates", 0.8809, 0.88),
        ("CSG training, accuracy without gates", 0.8809, 0.87),
    ]
    assert compared["difference"][0] == pytest.approx(0.0083)
    unasked = compare_authors(page_of(network | {"k2": 3}))
    assert unasked["ours"].notna().tolist() == [True, False, True] + 5 * [False]
    assert compared["setting"].tolist()[3:] == ["k1 = 5, k2 = 5, epoch 1"] + 2 * ["k1 = 5, k2 = 5"] + 2 * [
        "training images"
    ]
    wide = compare_authors(page_of(IMAGENET))
    assert wide[["figure", "authors", "ours"]].to_numpy().tolist() == [["r_A", 0.971, 0.96]]


@pytest.mark.parametrize(
    "other", [{"k1": "10"}, {"k2": 3}, {"rank_by": "value"}, {"rank_by": "contribution"}, {"group_by": "prediction"}]
)
def test_what_hangs_on_the_sets_is_compared_at_the_authors_setting_only(other: dict[str, object]) -> None:
    tables = {
        "ablation": noise(0.5, 0.8, 0.9),
        "retraining": retrained(0.9, "network"),
        "gates": frame({"split": ["train"], "std_accuracy": 0.87, "csg_accuracy": [0.88]}),
        "grid": frame({"k1": ["5", "5"], "k2": [5, 3], "accuracy": [0.88, 0.85], "ratio": 0.9}),
    }
    network = {"model": "cifar-resnet20", "a_full": 0.92}
    compared = compare_authors(page_of(network | other, **tables))
    in_grid = bool({"k1", "k2"} & set(other))  # a cell has its own k1 and k2
    assert compared["ours"].notna().tolist() == [True, in_grid, in_grid] + 5 * [False]


@pytest.mark.parametrize(
    ("network", "compared"),
    [
        ({"model": "cifar-resnet20"}, True),
        ({"model": "cifar-resnet20", "n_outputs": 100, "n_classes": 100}, False),
        ({"model": "cifar-resnet20", "n_outputs": np.nan}, False),
        ({"model": "resnet34"}, False),  # of any ten classes
        ({"model": "resnet18", "n_outputs": 200, "n_classes": 200}, False),
        (IMAGENET, True),
        (IMAGENET | {"n_classes": 10}, False),  # of a few classes only
        (IMAGENET | {"n_outputs": 10, "n_classes": 10}, False),
    ],
)
def test_a_network_is_the_authors_where_that_can_be_known(network: dict[str, object], compared: bool) -> None:
    assert (len(compare_authors(page_of(network))) > 0) == compared
