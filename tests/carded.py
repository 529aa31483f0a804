"""A config that asks all four questions of one small network, for cards."""

from typing import Any

from tests.probed import probed_config

Tree = dict[str, Any]  # Any: YAML


def carded_config(store: str) -> Tree:
    """Return the config: 60 digits in batches of one class, two snapshots, every question of one network."""
    probed = probed_config(store)
    return {
        "name": "carded",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {
            "digits": {"source": "sklearn-digits", "per_class": {"train": 6, "val": 3}},
            "probe": probed["data"]["probe"],
        },
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 4},
                "train": {
                    "data": "digits",
                    "epochs": 2,
                    "optimizer": {"kind": "sgd", "lr": 0.05},
                    "batches": {"kind": "single-class", "size": 4, "ghosts": 6},
                    "checkpoint_every": 25,
                    "snapshots": [0, 40],
                    "record": {},
                },
                "preprocessing": {"mode": "L"},
            }
        },
        "interpretation": {
            "networks": ["small"],
            "selectors": {"moderate": {}},
            "budgets": [0.5, 1.0],
            "interpreters": {"ice": {"components": 3}},
            "gallery": 2,
        },
        "decomposition": {"networks": ["small"], "k1": [3], "k2": [3]},
        "concepts": {**probed["concepts"], "temperatures": [], "track": {}},
        "tracing": {
            "networks": ["small"],
            "queries": {"count": 4},
            "k": 5,
            "ridges": {"classes": 3},
            "counterfactual": {"target": "predicted", "retrainings": 2},
            "suspects": 12,
        },
    }
