"""The small configs of a campaign: together they have every kind of stage and of archive, each runs for seconds."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.carded import carded_config
from tests.conftest import decomposed_config, tiny_config, traced_config
from tests.own_loop import config as linked_config
from tests.own_loop import record
from tests.probed import FEATURES, probed_config, save_features

Tree = dict[str, Any]  # Any: YAML
STORE = "lore"  # each run has another one
TOPICS = {"topics": 3, "hidden": 8, "epochs": 2, "frozen_epochs": 1, "batch": 16, "shapley_images": 4}
INDEX = {"references": 6, "held_out": 2, "coefficients": 4, "axes": 4}


def asked(folder: Path, kind: str) -> Tree:
    """Return a config that asks all four questions of one network, with an archive of a kind and all derived of it."""
    save_features(folder / FEATURES)
    tree = carded_config(str(folder / STORE))
    train, tracing = tree["networks"]["small"]["train"], tree["tracing"]
    train |= {"batches": {"kind": "single-class", "size": 6, "ghosts": 6}, "checkpoint_every": 5, "snapshots": [0, 20]}
    train["record"] = {"kind": kind}
    tree["interpretation"] |= {"budgets": [0.5], "interpreters": INTERPRETERS[kind]}
    tree["concepts"] |= {"layers": ["8"], "track": {}, "detectors": DETECTORS[kind]}
    tree["concepts"] |= {"teachers": {"neurons": 2, "images": 3, "examples": 2}}
    tree["decomposition"]["gallery"] = 3
    tracing |= {"derive": {"index": INDEX, "aggregate": {"groups": 3}}, "scores": ["gamma", "logit", "tracin"]}
    if kind == "hybrid":  # its weights are rounded: what needs exact ones would be refused
        del tracing["counterfactual"], tracing["scores"]
    return tree


INTERPRETERS: dict[str, Tree] = {
    "dense": {"ice": {"components": 3}},
    "hybrid": {"vebi": {}},
    "replay": {"topics": TOPICS},
}
DETECTORS: dict[str, Tree] = {
    "dense": {"soft_wpmi": {"top_k": 10}},
    "hybrid": {"network-dissection": {"quantile": 0.05}},
    "replay": {"cos_cubed": {}},
}


def described(folder: Path) -> Tree:
    """Return a config of a lottery under attack: descriptions by a captioner, a trained dual encoder, kept layers."""
    tree = probed_config(str(folder / STORE))
    train, concepts = tree["networks"]["small"]["train"], tree["concepts"]
    del train["snapshots"]
    train |= {"epochs": 1, "lottery": {"stages": 1, "fraction": 0.5}}
    tree["name"] = "described"
    concepts |= {"layers": ["8"], "track": {}, "temperatures": [], "image_text": {"kind": "tiny", "steps": 4}}
    concepts["detectors"] = {"milan": {"beam": 6, "length": 3, "lam": 0.3}}
    concepts["attack"] = {"data": "digits", "split": "val", "steps": 2, "restarts": 1, "count": 20}
    concepts["captioner"] = {
        **{"encoder": "small", "layers": ["8"], "captions": {"kind": "drawn", "count": 24}},
        **{"exemplars": 3, "quantile": 0.1, "embedding": 6, "hidden": 10, "epochs": 2},
    }
    tree["activations"] = {"networks": ["small"], "layers": ["2", "8"], "keep": ["pooled", "maps"]}
    return tree


def packed(folder: Path) -> Tree:
    """Return a config with stages of 64 partitions, whose records are packed: question 4 of 64 segments of a step."""
    tree = traced_config(str(folder / STORE))
    tree["name"] = "packed"
    tree["data"]["digits"]["per_class"] = {"train": 9, "val": 2}
    train, tracing = tree["networks"]["small"]["train"], tree["tracing"]
    train |= {"batches": {"kind": "single-class", "size": 3, "ghosts": 6}, "checkpoint_every": 1}
    tracing |= {"derive": {"index": INDEX}, "evaluation": {}}
    del tracing["ridges"]
    return tree


def linked(folder: Path) -> Tree:
    """Return a config that asks question 4 of the archive of a loop of one's own."""
    if not (folder / "own").exists():
        record(folder / "own")
    tree = linked_config(folder / STORE, folder / "own")
    tree["name"] = "linked"
    return tree


def of_tests(config: Callable[[str], Tree]) -> Callable[[Path], Tree]:
    """Return one of the tests' configs as a function of a folder."""
    return lambda folder: copy.deepcopy(config(str(folder / STORE)))


CONFIGS: dict[str, Callable[[Path], Tree]] = {
    "dense": lambda folder: {**asked(folder, "dense"), "name": "dense"},
    "hybrid": lambda folder: {**asked(folder, "hybrid"), "name": "hybrid"},
    "replay": lambda folder: {**asked(folder, "replay"), "name": "replay"},
    "described": described,
    "packed": packed,
    "linked": linked,
    "tiny": of_tests(tiny_config),
    "traced": of_tests(traced_config),
    "decomposed": of_tests(decomposed_config),
}
