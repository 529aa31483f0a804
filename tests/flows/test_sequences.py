"""Question 4 about readers of token sequences of several lengths, from the config to the tables."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from configs.schema import Config
from flows import cli, exits
from flows.plan import make_plan
from tasks.engine.life import Job
from tasks.engine.records import recorded
from tasks.steps.report import write_report
from tests.flows.command import said_by
from tests.plans import complete_plan

Tree = dict[str, Any]  # Any: YAML
VOCABULARY, CLASSES = 8, 2


def config(folder: Path, **changes: object) -> Tree:
    """A config of two readers; the class of a sequence is whether token 1 is in it."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 40)
    values = rng.integers(2, VOCABULARY, lengths.sum())
    offsets = np.concatenate([[0], lengths.cumsum()])
    labels = np.arange(40) % CLASSES
    values[offsets[:-1][labels == 1]] = 1
    arrays: dict[str, Any] = {"values": values, "offsets": offsets, "labels": labels}  # Any: arrays
    np.savez(folder / "tokens.npz", **{**arrays, **changes})
    train = {
        "data": "tokens",
        "epochs": 3,
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
        "batches": {"kind": "single-class", "size": 4, "ghosts": 0},
        "checkpoint_every": 10,
        "record": {"kind": "dense"},
    }
    arguments = {"vocabulary": VOCABULARY, "width": 8, "classes": CLASSES}
    return {
        "name": "sequences",
        "store": str(folder / "store"),
        "cluster": {"kind": "serial"},
        "data": {
            "tokens": {
                "source": "sequence-npz",
                "paths": {"all": str(folder / "tokens.npz")},
                "vocabulary": VOCABULARY,
                "split": {"train": 0.8, "val": 0.2},
            }
        },
        "networks": {
            "lstm": {"model": "lstm", "arguments": arguments, "train": train},
            "transformer": {
                "model": "transformer",
                "arguments": {**arguments, "heads": 2, "layers": 1, "length": 5},
                "train": train,
            },
        },
        "tracing": {
            "networks": ["lstm", "transformer"],
            "queries": {"count": 4},
            "bias": True,
            "scores": ["gamma", "logit"],
        },
    }


def said(folder: Path, tree: Tree) -> tuple[int, str]:
    """Return the exit code of a plan and what it said."""
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(cli.app, ["plan", str(folder / "run.yaml")])
    return result.exit_code, "\n".join(said_by(result))


def test_readers_of_tokens_are_traced_whole(tmp_path: Path, make_job: Callable[[Config], Job]) -> None:
    asked = Config.model_validate(config(tmp_path))
    plan, job = make_plan(asked), make_job(asked)
    with recorded(job.store, asked, plan.stages):
        complete_plan(plan, job)
    write_report(job.store, plan.made(), created="now", reused=frozenset())
    layers = pd.read_parquet(tmp_path / "store/reports/sequences/tables/tracing_layers.parquet")
    residuals = layers.filter(like="residual").abs()
    assert residuals.size
    assert float(residuals.max().max()) < 1e-4
    names = set(layers["layer"])
    assert {"embedding", "lstm.l0", "head"} <= names
    assert {"positions", "blocks.0.attention.v_proj", "blocks.0.wide", "blocks.0.narrow"} <= names
    store = str(tmp_path / "store")
    assert_explained(store, "--query", "1", "--unit", "blocks.0.wide:3", network="transformer")
    assert_explained(store, "--sample", "2", "--unit", "lstm.l0:5", network="lstm")
    assert_explained(store, "--sample", "all/7", "--layer", "lstm.l0", network="lstm")
    assert_explained(store, "--sample", "1", "--network", "lstm", network="lstm")
    for choice in ("transformer", "transformer seed 0"):
        result = CliRunner().invoke(cli.app, ["explain", store, "--query", "1", "--network", choice])
        assert re.findall(r"influence (\S+ seed \d)", result.stdout) == ["transformer seed 0"]
    for asked_of in ("--query", "--sample"):
        result = CliRunner().invoke(cli.app, ["explain", store, asked_of, "1", "--network", "trans"])
        assert result.exit_code == exits.BAD_CONFIG
        (line,) = said_by(result)
        assert line == "error: --network: expected one of lstm seed 0, transformer seed 0, found 'trans'"
    for arguments, words in (
        (("--unit", "conv:1"), "--unit: expected LAYER:INDEX with a recorded layer of embedding, lstm.l0, head, found"),
        (("--layer", "conv"), "--layer: expected one of embedding, lstm.l0, head, found 'conv'"),
        (("--image", "x.png"), "--image: expected a network of images, found one of graphs or sequences; use --sample"),
    ):
        result = CliRunner().invoke(
            cli.app, ["explain", store, *arguments, *([] if "--image" in arguments else ["--sample", "1"])]
        )
        assert result.exit_code == exits.BAD_CONFIG
        (line,) = said_by(result)
        assert words in line


def assert_explained(store: str, *asked: str, network: str) -> None:
    """The one network of the run that has the layer is explained."""
    result = CliRunner().invoke(cli.app, ["explain", store, *asked, "--count", "1"])
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if " seed 0" in line] == [f"{network} seed 0, from its archive"]
    assert asked[-1] in result.stdout
    assert result.stdout.count("from its archive") == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"offsets": np.array([0, 0, *range(3, 42)])}, "sequence 0: expected at least one step, found none"),
        ({"labels": np.zeros(39, int)}, "array 'labels': expected 40 integers, one a sequence"),
    ],
)
def test_files_that_are_not_sequences(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    if "offsets" in changes:
        changes = {"offsets": changes["offsets"], "values": np.ones(int(changes["offsets"][-1]), int)}
    code, lines = said(tmp_path, config(tmp_path, **changes))
    assert code == exits.BAD_CONFIG
    assert text in lines
    assert len(lines.splitlines()) == 1


def test_features_for_a_reader_of_tokens_and_changes_of_images(tmp_path: Path) -> None:
    with np.load(_tokens(tmp_path)) as arrays:
        count = int(arrays["offsets"][-1])
    tree = config(tmp_path, values=np.ones((count, 3)))
    code, lines = said(tmp_path, tree)
    assert code == exits.BAD_CONFIG
    assert "tokens.npz: expected tokens (n,), as `vocabulary` says, found features (" in lines
    del tree["data"]["tokens"]["vocabulary"]
    code, lines = said(tmp_path, tree)
    assert code == exits.BAD_CONFIG
    assert lines.startswith("error: networks.lstm: expected tokens, found features of size 3; set `arguments: {feat")
    tree = config(tmp_path)
    tree["networks"]["lstm"]["train"] = {**tree["networks"]["lstm"]["train"], "augment": {"flip": True}}
    code, lines = said(tmp_path, tree)
    assert code == exits.BAD_CONFIG
    assert "train.augment: expected images, found graphs or sequences; leave it out" in lines


def _tokens(folder: Path) -> Path:
    """Write the archive of tokens, and return its path."""
    config(folder)
    return folder / "tokens.npz"


def test_tokens_beyond_the_vocabulary_of_the_data_or_the_network(tmp_path: Path) -> None:
    tree = config(tmp_path)
    tree["data"]["tokens"]["vocabulary"] = VOCABULARY - 1
    code, lines = said(tmp_path, tree)
    assert code == exits.BAD_CONFIG
    assert f"expected a token from 1 to {VOCABULARY - 2}, as vocabulary says, found {VOCABULARY - 1}" in lines
    tree = config(tmp_path)
    tree["networks"]["lstm"]["arguments"] = {"vocabulary": 4, "width": 8, "classes": CLASSES}
    code, lines = said(tmp_path, tree)
    assert code == exits.BAD_CONFIG
    assert "networks.lstm: expected tokens below 4, the vocabulary, found 7" in lines
