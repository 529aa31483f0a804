"""The shallow twin of a network, and the sentence on both accuracies, from small tables."""

import pandas as pd

from tasks.report.tracing.findings import tracing_findings
from tasks.report.tracing.twins import twin_of, twin_sentence
from tests.tasks.report.tracing.test_tracing_findings import EVALUATION, LAYERS, SHARES


def table(*rows: tuple[str, int, str, str, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["network", "seed", "model", "data", "accuracy", "layers"])


def test_a_twin_has_the_same_model_and_data_and_the_fewest_layers() -> None:
    networks = table(
        ("deep", 0, "graph-network", "mutag", 0.9, 16),
        ("middle", 0, "graph-network", "mutag", 0.9, 7),
        ("shallow", 0, "graph-network", "mutag", 0.8, 4),
        ("mlp", 0, "mlp", "mutag", 0.8, 2),
        ("elsewhere", 0, "graph-network", "nci1", 0.8, 3),
    )
    found = {name: twin_of(networks, name) for name in networks["network"]}
    assert found == {"deep": "shallow", "middle": "shallow", "shallow": "", "mlp": "", "elsewhere": ""}
    assert twin_of(networks.drop(columns="data"), "deep") == ""


def test_one_seed_compares_two_numbers() -> None:
    networks = table(("deep", 0, "g", "d", 0.875, 16), ("shallow", 0, "g", "d", 0.75, 4))
    text = twin_sentence(networks, "deep", 0).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        text == " Its shallow twin shallow has 4 traced layers in place of 16. Its accuracy is 75.0 % against 87.5 %."
    )
    assert twin_sentence(networks, "shallow", 0) == ""
    assert twin_sentence(networks, "deep", 1) == ""
    assert twin_sentence(networks[:0], "deep", 0) == ""


def test_seeds_are_compared_in_pairs() -> None:
    rows = [("deep", seed, "g", "d", 0.9, 16) for seed in range(3)]
    near = [("shallow", seed, "g", "d", value, 4) for seed, value in enumerate((0.8, 0.9, 1.0))]
    far = [("shallow", seed, "g", "d", value, 4) for seed, value in enumerate((0.6, 0.61, 0.59))]
    text = twin_sentence(table(*rows, *near), "deep", 1)
    assert "over 3 seeds" in text
    assert "the difference is within two standard errors" in text  # mean 0, standard error .058
    assert "the twin is worse by more than two standard errors" in twin_sentence(table(*rows, *far), "deep", 1)


def test_the_sentence_follows_the_layers_that_no_class_owns() -> None:
    depth = [f.text for f in tracing_findings(LAYERS, SHARES, EVALUATION, " Its twin.") if f.about == "Depth"]
    assert all(text.endswith(" Its twin.") for text in depth)
    assert len(depth) <= 1
