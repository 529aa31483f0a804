"""Malformed configs through `layerlore plan`: a code and a few lines each, never a traceback, and nothing written."""

import copy
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from configs.load import MAX_LINES, presets
from flows import cli, exits
from tasks.io.networks import build_model
from tests.security.mutations import Tree, mutate

WORKING = ("digits", "tracing-digits", "decomposition-digits", "concepts-digits")  # presets that need no files
ASKED: Tree = {
    "activations": {"networks": ["small"], "layers": ["0"], "splits": ["train"], "keep": ["pooled", "maps"]},
    "decomposition": {
        "networks": ["small"],
        "k1": [3, {"coverage": 0.5}],
        "k2": 3,
        "draws": 2,
        "sample_need": [1, 2],
        "ablation": {"noises": ["zero"], "scopes": ["union"], "draws": 2},
        "retraining": {
            "head": {"epochs": 1, "optimizer": {"kind": "adam", "betas": [0.9, 0.99]}},
            "network": {"epochs": 1, "optimizer": {"kind": "sam", "lr": 0.1, "rho": 0.05}},
        },
        "gallery": 2,
    },
    "concepts": {
        "networks": ["small"],
        "layers": ["2", "5"],
        "layout": {"2": "channels-first"},
        "pool": "max",
        "snapshots": [0, 3],
        "probe": {"data": "probe", "split": "all", "size": 16},
        "words": ["labels", "words.txt"],
        "image_text": {"kind": "tiny", "steps": 3, "seed": 1},
        "text": "own",
        "detectors": {
            "wpmi": {"top_k": 5, "a": 2, "lam": 0.6, "temperature": 0.1, "tau": "shipped"},
            "cos_cubed": {"min_norm": "scale-free"},
            "rank_reorder": {"p": 3, "top_fraction": 0.1, "scale_p": 0.5, "seed": 1},
            "network-dissection": {"quantile": 0.05, "category_restriction": "region", "maps": "recomputed"},
        },
        "anchors": ["red", "blue"],
        "track": {"2": [0, 1]},
        "temperatures": [0.1, 1.0],
        "plane": "pca",
        "shown": 2,
        "seed": 1,
    },
    "tracing": {
        "networks": ["small"],
        "layers": ["0"],
        "queries": {"split": "val", "count": 2},
        "k": 3,
        "scores": ["gamma"],
        "window": [0, 5],
        "ridges": {"bandwidth": 0.1, "kind": "absolute", "classes": 3},
        "evaluation": {"mislabel": True, "randomisation": True, "lds": {"subsets": 2, "share": 0.5, "retrainings": 1}},
    },
}
TRAIN: Tree = {
    "batches": {"kind": "single-class", "size": 4, "ghosts": 5},
    "schedule": {"kind": "cosine", "warmup": 1, "final": 0.1},
    "clip": 1.0,
    "augment": {"pad": 1, "flip": True},
    "snapshots": 3,
    "record": {"kind": "auto", "layers": ["0"], "steps": [[0, 10]], "archive_budget": "1GB"},
    "checkpoint_every": 5,
}
SOURCES: Tree = {
    "name": "sources",
    "cluster": {"kind": "serial"},
    "data": {
        "archive": {"source": "npz", "paths": {"train": "train.npz", "val": ["val.npz"]}, "images": "images"},
        "table": {"source": "csv", "paths": {"train": "train.csv", "val": "val.csv"}, "label_column": "label"},
        "folder": {
            "source": "image-folder",
            "paths": {"train": "img/train", "val": "img/val"},
            "classes": {"a": 0, "b": 1},
        },
        "imagenet": {"source": "imagenet", "root": "img"},
        "own": {"source": "import", "object": "tasks.io.digits:DigitsSource", "split": {"train": 0.5, "val": 0.5}},
    },
    "networks": {
        "given": {
            "model": "small-cnn",
            "arguments": {"width": 4, "classes": 2},
            "weights": "w.pt",
            "preprocessing": {"mode": "L"},
        },
        "started": {
            "model": "small-cnn",
            "arguments": {"width": 4, "classes": 2},
            "preprocessing": {"mode": "L", "resize": [8, 8]},
            "train": {
                "data": "table",
                "epochs": 1,
                "start": "w.pt",
                "optimizer": {"kind": "adamw"},
                "batches": {"size": 2},
            },
        },
    },
    "interpretation": {
        "networks": ["given"],
        "data": "archive",
        "selectors": {"random": {"repeats": 2}, "moderate": {"center": "mean", "min_per_class": 1}},
        "budgets": [0.5, 1.0],
        "interpreters": {"ice": {"components": 2}},
        "coreset_from": "given",
        "gallery": 1,
    },
    "decomposition": {"networks": ["started"], "data": "folder", "k1": 2, "k2": 2, "draws": 2},
    "concepts": {
        "networks": ["given"],
        "layers": {"given": ["2"]},
        "checkpoints": {"given": {"folder": "weights", "pattern": r"(\d+)\.pt$"}},
        "probe": {"data": "folder", "size": 8},
        "image_text": {"kind": "features", "path": "features.npz", "images": "i", "texts": "t", "words": "w"},
        "detectors": {"soft_wpmi": {"top_k": 4}},
        "shown": 1,
    },
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Tree]]:
    """Whole configs: all presets, one with every key, one of every source; the working directory has their files."""
    folder = tmp_path_factory.mktemp("malformed")
    write_data(folder)
    trees = {name: yaml.safe_load(text) for name, text in presets().items()}
    every = copy.deepcopy(trees["digits"])
    every["networks"]["small"] |= {"arguments": {"width": 4}, "preprocessing": {"mode": "L", "resize": 8, "crop": 8}}
    every["networks"]["small"]["train"] |= copy.deepcopy(TRAIN)
    every["data"]["digits"] |= {
        "per_class": {"train": 12, "val": 4},
        "class_names": list("abcdefghij"),
        "noise": {"share": 0.1, "kind": "flip", "splits": ["train"], "seed": 0},
    }
    every["data"]["probe"] = {"source": "mini-broden", "count": 64, "size": 32, "seed": 1}
    whole = [every | copy.deepcopy(ASKED), SOURCES, *(trees[name] for name in WORKING)]
    before = os.getcwd()
    os.chdir(folder)
    yield [{**tree, "store": "lore"} for tree in (*whole * 3, *trees.values())]  # most of them those that can run
    os.chdir(before)


def write_data(folder: Path) -> None:
    """Write archives, tables, image folders and weights of two classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        images, labels = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8), np.repeat([0, 1], 3)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
        rows = [f"img/{split}/{'ab'[label]}/{number}.png,{label}" for number, label in enumerate(labels)]
        (folder / f"{split}.csv").write_text("\n".join(["path,label", *rows]))
        for row, image in zip(rows, images, strict=True):
            file = folder / row.partition(",")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    (folder / "weights").mkdir()
    for path in ("w.pt", "weights/1.pt", "weights/2.pt"):
        torch.save(build_model("small-cnn", {"width": 4, "classes": 2}, 0).state_dict(), folder / path)
    (folder / "words.txt").write_text("red\nblue\tcolor\n")
    np.savez(folder / "features.npz", i=rng.normal(size=(12, 3)), t=rng.normal(size=(2, 3)), w=np.array(["a", "b"]))


def planned(tree: Tree) -> str:
    """Plan a config in this process and return what the plan made of it, after checking how it says so."""
    Path("run.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    before = sorted(os.listdir())
    result = CliRunner().invoke(cli.app, ["plan", "run.yaml"])
    lines = result.stderr.splitlines()
    assert result.exit_code in (exits.DONE, exits.BAD_CONFIG), (result.stderr, result.exception, tree)
    assert "Traceback" not in result.output
    assert sorted(os.listdir()) == before, tree
    if result.exit_code == exits.DONE:
        return "planned"
    assert 1 <= len(lines) <= MAX_LINES, (lines, tree)
    assert all(line.startswith("error: ") and line.isprintable() and len(line) < 1200 for line in lines), (lines, tree)
    return "by the schema" if all(line.startswith("error: run.yaml: ") for line in lines) else "by the plan"


def try_many(bases: list[Tree], examples: int) -> Counter[str]:
    """Plan so many malformed configs; return how many ended how."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(data=st.data())
    def attempt(data: st.DataObject) -> None:
        tree = copy.deepcopy(data.draw(st.sampled_from(bases)))
        mutate(data, tree)
        outcomes[planned(tree)] += 1

    attempt()
    return outcomes


def test_the_configs_are_sound_before_they_are_changed(bases: list[Tree]) -> None:
    assert [planned(tree) for tree in bases[:6]] == ["planned"] * 6


def test_malformed_configs_are_refused_in_a_few_lines(bases: list[Tree]) -> None:
    outcomes = try_many(bases, 30)
    assert outcomes.total() >= 30
    assert set(outcomes) == {"planned", "by the schema", "by the plan"}, outcomes


@pytest.mark.slow
def test_300_malformed_configs_are_refused_in_a_few_lines(bases: list[Tree]) -> None:
    outcomes = try_many(bases, 300)
    assert outcomes.total() >= 300
    assert min(outcomes[how] for how in ("planned", "by the schema", "by the plan")) >= 15, outcomes


FOUND = [  # by this test before they were mended
    ("networks.small.arguments", {"a": {1: 2, "b": 3}}, "networks.small.arguments.a.1: keys should be strings"),
    ("networks.small.arguments", {"a": float("nan")}, "networks.small.arguments.a: input should be a finite number"),
    (
        "networks.small.arguments",
        {"a": "\udc80"},
        "networks.small.arguments.a: expected characters, found half of a surrogate pair",
    ),
    ("data.digits.split", {}, "data.digits: split: expected at least one share, found none"),
    ("store", "~nobody_has_this_name/x", "store: expected the home folder of a user"),
    ("store", "a\0b", "store: expected a path or URL without control characters"),
    (
        "networks.small.train.epochs",
        2**63 - 1,
        "networks.small.train.epochs: input should be less than or equal to 1000000",
    ),
    ("networks.small.train.snapshots", 10**12, "networks.small.train: snapshots: expected at most 10,000"),
    ("networks.small.preprocessing.resize", 10**6, "networks.small.preprocessing.resize: expected 1 to 8,192 pixels"),
    ("networks.small.preprocessing.crop", 10**6, "networks.small.preprocessing.crop: expected 1 to 8,192 pixels"),
    (
        "interpretation.selectors.random.repeats",
        10**12,
        "interpretation: selectors.random.repeats: expected at most 1,000",
    ),
    ("tracing.evaluation.lds.subsets", 10**6, "tracing.evaluation.lds: subsets x retrainings: expected at most 10,000"),
    ("cluster.\x1b[2J\n\u2028", 1, r"cluster.\x1b[2J\n\u2028: unknown key"),
    ("cluster." + "x" * 5000, 1, f"cluster.{'x' * 57}...: unknown key"),
]


@pytest.mark.parametrize(("key", "value", "expected"), FOUND)
def test_what_was_found_stays_mended(bases: list[Tree], key: str, value: object, expected: str) -> None:
    tree = copy.deepcopy(bases[0])
    *parents, last = key.split(".") if "\x1b" not in key else ("cluster", key.partition(".")[2])
    below = tree
    for parent in parents:
        below = below[parent]
    below[last] = value
    assert planned(tree) == "by the schema"
    (line,) = CliRunner().invoke(cli.app, ["plan", "run.yaml"]).stderr.splitlines()
    assert line.startswith(f"error: run.yaml: {expected}")
