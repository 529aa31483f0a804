"""Parts of attention and recurrent layers in question 4: an archive that can split them does, others say so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.progress import planned_stages
from storage.stages import open_finished
from tasks.steps.tracing.results import tracing_results
from tests.conftest import Run, tiny_config
from tests.plans import traces
from tests.tasks.steps.tracing.test_members import influence_of

Tree = dict[str, Any]  # Any: YAML
TRANSFORMER = {"features": 8, "length": 8, "width": 8, "layers": 1, "heads": 2}


def tree_of(store: Path, model: str, kind: str, optimizer: Tree, **arguments: Any) -> Tree:  # Any: YAML
    """Return a config that traces a network which reads digits row by row."""
    tree = tiny_config(str(store))
    del tree["interpretation"]
    train = {"data": "digits", "epochs": 2, "optimizer": optimizer, "batches": {"kind": "shuffled", "size": 16}}
    train |= {"record": {"kind": kind}, "checkpoint_every": 10}
    tree["networks"] = {"net": {"model": model, "arguments": arguments, "train": train, "preprocessing": {"mode": "L"}}}
    tree["tracing"] = {"networks": ["net"], "queries": {"count": 3}, "k": 20}
    return tree


@pytest.mark.parametrize(
    ("model", "arguments", "maps"),
    [
        ("transformer", TRANSFORMER, [f"blocks.0.attention.{part}_proj" for part in ("q", "k", "v", "out")]),
        ("lstm", {"features": 8, "width": 6}, ["lstm.l0"]),
    ],
)
def test_a_replay_splits_maps_by_example(tmp_path: Path, model: str, arguments: Tree, maps: list[str]) -> None:
    run = Run.of(
        tree_of(tmp_path / "store", model, "replay", {"kind": "sgd", "lr": 0.05, "momentum": 0.5}, **arguments)
    )
    assert not any("split equally" in size.about for size in planned_stages(run.plan, None))
    run.finish()
    (trace,) = traces(run.plan)
    layers = tracing_results(run.job.store, [trace], "hide").layers.set_index("layer")["split"]
    assert set(layers[maps]) == {"example"}
    stage, _ = influence_of(run)
    contributions = open_finished(run.job.store, trace.contributions)
    for layer in maps:
        parts, gamma = (contributions.read(f"{name}.{layer}").astype(float) for name in ("members", "gamma"))
        # Without decay, the parts of all steps are the gammas of all steps.
        np.testing.assert_allclose(np.nansum(parts, axis=(0, 1)), gamma.sum(0), atol=2e-3 * np.abs(gamma).sum(0).max())
        assert np.ptp(parts[0], axis=0).max() > 0
        index = stage.summary["rankings"].index([layer, "gamma"])
        sums = stage.read("top_sum", index, index + 1)[0]
        assert np.all(np.diff(sums, axis=1) <= 0)


@pytest.mark.parametrize(
    ("kind", "optimizer", "line"),
    [
        (
            "dense",
            {"kind": "sgd", "lr": 0.05},
            "of all layers is split equally over its examples, since a dense",
        ),
        ("replay", {"kind": "adam", "lr": 0.01}, "of all layers is split equally over its examples, since adam is not"),
        (
            "hybrid",
            {"kind": "sgd", "lr": 0.05},
            "since a hybrid archive keeps whole updates of attention",
        ),
    ],
)
def test_the_plan_says_where_parts_are_equal(tmp_path: Path, kind: str, optimizer: Tree, line: str) -> None:
    run = Run.of(tree_of(tmp_path / "store", "transformer", kind, optimizer, **TRANSFORMER))
    lines = [size.about for size in planned_stages(run.plan, None)]
    assert any(line in one for one in lines), lines
