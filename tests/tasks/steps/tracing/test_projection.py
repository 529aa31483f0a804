"""The contributions stage against explicit float64 products of every update with every query."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from configs.schema import Config
from flows.plan import make_plan
from storage.specs import StageSpec
from storage.stages import FinishedStage, find_finished, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.recording.sources import update_source
from tasks.steps.tracing import projection
from tasks.steps.tracing.projection import CONTRIBUTIONS
from tests.plans import traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Run
    from tests.tasks.steps.tracing.conftest import Plain

    Retrain = Callable[..., Plain]

CLOSE = 2e-5  # of ||z|| ||D_t f||, what float32 promises
GAPS = [(4, 5), (5, 7), (10, 12), (13, 14)]  # unrecorded steps of the gapped run, cut where segments end


def opened(run: "Run") -> tuple[FinishedStage, NDArray[np.int64]]:
    """Return a run's contributions and the ids of its queries."""
    trace = traces(run.plan)[0]
    queries = open_finished(run.job.store, trace.queries)
    return open_finished(run.job.store, trace.contributions), np.asarray(queries.read("sample_id"), np.int64)


def close(found: NDArray[Any], expected: NDArray[np.float64], scale: NDArray[np.float64]) -> None:  # Any: dtype
    """Compare on a scale per element."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_array_less(np.abs(found.astype(np.float64) - expected), CLOSE * scale + 1e-9)


def test_a_diverged_training_is_not_summed(mlp: dict[str, Any], new_run: "Callable[[dict[str, Any]], Run]") -> None:
    one = {"epochs": 1, "batches": {"size": 20}, "optimizer": {"kind": "sgd", "lr": 1e15}}
    mlp["networks"]["net"]["train"] |= one
    run = new_run(mlp)
    text = r"contributions net seed 0 net val \[\w+\]: layer '3', step 0, query 0: expected a finite gamma, found inf"
    with np.errstate(over="ignore"), pytest.raises(PartitionError, match=text):
        run.finish()
    spec = traces(run.plan)[0].contributions
    assert find_finished(run.job.store, spec.path) is None
    assert not run.job.store.names(f"{spec.path}/markers")


def test_the_ledger_has_the_seed_of_the_augmentation(
    mlp: dict[str, Any], new_run: "Callable[[dict[str, Any]], Run]"
) -> None:
    mlp |= {"seeds": [12]}
    for augment, expected in (({"pad": 1, "flip": True}, 12), (None, -1)):
        mlp["networks"]["net"]["train"]["augment"] = augment
        run = new_run(mlp).finish()
        ledger = update_source(open_finished(run.job.store, traces(run.plan)[0].training)).ledger
        assert set(ledger["augmentation"]) == {expected}


def test_the_plain_loop_trains_the_same_network(traced_run: "Run", plain: "Plain") -> None:
    spec = traces(traced_run.plan)[0].training
    weights = load_file(Path(traced_run.config.store, spec.path, "files/weights.safetensors"))
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-7)
    source = update_source(open_finished(traced_run.job.store, spec))
    assert source.layers == plain.layers == ["0", "3", "6", "11"]
    ledger = source.ledger
    np.testing.assert_allclose(ledger["loss"], [step.loss for step in plain.steps], rtol=1e-6)
    np.testing.assert_allclose(ledger["lr"], [step.lr for step in plain.steps], rtol=1e-12)
    assert ledger["label"].tolist() == [step.label for step in plain.steps]
    assert ledger["epoch"].tolist() == [step.epoch for step in plain.steps]
    for step, examples, ghosts in zip(plain.steps, source.examples, source.ghosts, strict=True):
        np.testing.assert_array_equal(examples, step.members)
        np.testing.assert_array_equal(ghosts, step.ghosts)
        assert len(ghosts) == 6


@pytest.mark.parametrize("which", ["traced_run", "mlp_run"])
def test_gamma_and_norm_of_every_layer_step_and_query(
    request: pytest.FixtureRequest, retrain: "Retrain", which: str
) -> None:
    run: Run = request.getfixturevalue(which)
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    for layer in plain.layers:
        expected = plain.project(layer, ids, bias=which == "mlp_run")
        scale = expected.norm * expected.z_norm
        assert (scale > 0).any()
        close(stage.read(f"gamma.{layer}"), expected.gamma, scale)
        close(stage.read(f"norm.{layer}"), expected.norm, expected.norm)
        close(stage.read(f"preactivation.{layer}"), expected.z_norm, expected.z_norm)
        close(stage.read(f"init.{layer}"), expected.init, expected.z_norm**2 + np.abs(expected.init))
        total = expected.gamma.sum(axis=0) + expected.init
        np.testing.assert_allclose(total, expected.z_norm**2, rtol=1e-9)


def test_a_gap_in_the_record_is_one_row_and_the_displacement_needs_no_init(
    gapped_run: "Run", retrain: "Retrain"
) -> None:
    stage, ids = opened(gapped_run)
    plain = retrain(gapped_run, traces(gapped_run.plan)[0].training)
    assert len(plain.steps) == 14
    for layer in plain.layers:
        expected = plain.project(layer, ids, bias=True, displacement=True)
        np.testing.assert_allclose(expected.gamma.sum(axis=0), expected.z_norm**2, rtol=1e-9)
        scale = np.broadcast_to(expected.norm.sum(axis=0) * expected.z_norm, expected.gamma.shape)
        gamma = expected.gamma.copy()
        for start, stop in GAPS:
            gamma[stop - 1] = expected.gamma[start:stop].sum(axis=0)
            gamma[start : stop - 1] = 0
        found = stage.read(f"gamma.{layer}")
        close(found, gamma, scale)
        assert (found[[5, 10]] == 0).all()
        assert (found[[6, 11]] != 0).all()
        close(stage.read(f"preactivation.{layer}"), expected.z_norm, expected.z_norm)
        close(stage.read(f"init.{layer}"), expected.init, expected.z_norm**2 + np.abs(expected.init))


@pytest.mark.parametrize("which", ["traced_run", "mlp_run"])
def test_the_output_layer_says_what_each_step_added_to_two_logits(
    request: pytest.FixtureRequest, retrain: "Retrain", which: str
) -> None:
    run: Run = request.getfixturevalue(which)
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    output = plain.layers[-1]
    assert {name for name in stage.layout.arrays if name.startswith("logit")} == {
        f"logit.{output}",
        f"logit_init.{output}",
    }
    logits = plain.logits(ids)
    labels = open_finished(run.job.store, traces(run.plan)[0].queries).read("label")
    for column, classes in enumerate((logits.argmax(axis=1), labels)):
        steps, _, init = plain.logit(output, ids, classes)
        read = [stage.read(f"{name}.{output}").astype(np.float64) for name in ("logit", "logit_init")]
        found = read[0][..., column], read[1][:, column]
        np.testing.assert_allclose(found[0], steps, rtol=1e-4, atol=1e-6 * np.abs(steps).max())
        np.testing.assert_allclose(found[1], init, rtol=1e-4, atol=1e-6)
        whole = found[0].sum(axis=0) + found[1]
        np.testing.assert_allclose(whole, logits[np.arange(len(ids)), classes], rtol=1e-4, atol=1e-5)


def test_queries_that_do_not_fit_together_give_the_same(
    mlp_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mlp_run.at(str(tmp_path / "copy"))
    spec = traces(run.plan)[0].contributions
    shutil.rmtree(Path(run.config.store, spec.path))
    monkeypatch.setattr(projection, "INPUT_BYTES", 1)
    (again,) = complete(run.job, CONTRIBUTIONS, [spec])
    before = open_finished(mlp_run.job.store, spec)
    assert set(again.layout.arrays) == set(before.layout.arrays)
    for name in before.layout.arrays:
        np.testing.assert_allclose(
            again.read(name).astype(float), before.read(name).astype(float), rtol=1e-5, atol=1e-7
        )


def test_only_named_layers_are_traced(mlp: dict[str, Any], new_run: "Callable[[Any], Run]") -> None:
    mlp["tracing"] |= {"layers": ["1"], "scores": ["gamma", "logit"]}
    run = new_run(mlp).finish()
    trace = traces(run.plan)[0]
    stage = open_finished(run.job.store, trace.contributions)
    assert set(stage.layout.arrays) == {"gamma.1", "norm.1", "init.1", "preactivation.1"}
    assert stage.summary == {"kinds": {"1": "Linear"}, "weights": {"1": 64 * 7}}
    assert open_finished(run.job.store, trace.influence).summary["rankings"] == [["1", "gamma"]]  # no output layer


def test_layers_are_traced_in_the_networks_order(traced_tree: dict[str, Any]) -> None:
    def contributions() -> StageSpec:
        return traces(make_plan(Config.model_validate(traced_tree)))[0].contributions

    everything = contributions()
    assert everything.place["layers"] == "all"
    record = traced_tree["networks"]["small"]["train"]["record"]
    traced_tree["networks"]["small"]["train"]["record"] = {**record, "layers": ["11", "6", "0"]}
    assert contributions().place["layers"] == ["0", "6", "11"]
    traced_tree["networks"]["small"]["train"]["record"] = {**record, "layers": ["0", "6", "11"]}
    assert contributions().place["layers"] == "all"
    traced_tree["networks"]["small"]["train"]["record"] = record
    traced_tree["tracing"]["layers"] = ["0", "3", "11"]
    ordered = contributions()
    traced_tree["tracing"]["layers"] = ["11", "0", "3"]
    assert contributions().place["layers"] == ["0", "3", "11"]
    assert contributions().key == ordered.key != everything.key
