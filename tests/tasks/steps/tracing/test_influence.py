"""The influence stage against sums over the ledger's members in plain dictionaries."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.stages import FinishedStage, open_finished
from tasks.engine.life import complete
from tasks.steps.tracing import influence
from tasks.steps.tracing.explain import read_influence
from tasks.steps.tracing.influence import INFLUENCE
from tests.plans import traces
from tests.tasks.steps.tracing import conftest
from tests.tasks.steps.tracing.conftest import GAPS

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.steps.tracing.conftest import Plain, Projected

Doubles = NDArray[np.float64]
Retrain = Callable[..., "Plain"]
CLOSE = 1e-4  # of a sum's size: float32 of each step
COUNTED = {"mlp_run": range(5, 30), "gapped_run": (0, 1, 2, 3, 7, 8, 9, 12)}  # a window; recorded steps


def counts(which: str, step: int) -> bool:
    """Say whether a step's examples are credited in a run."""
    return which not in COUNTED or step in COUNTED[which]


def opened(run: "Run") -> tuple[FinishedStage, NDArray[np.int64]]:
    """Return a run's influence, and the ids of its queries."""
    trace = traces(run.plan)[0]
    queries = open_finished(run.job.store, trace.queries)
    return open_finished(run.job.store, trace.influence), np.asarray(queries.read("sample_id"), np.int64)


def of_examples(plain: "Plain", layer: str, score: str, ids: NDArray[np.int64], *, bias: bool) -> Doubles:
    """Return what each step's examples contributed to a score, decay left out, (T, Q)."""
    if score == "logit":
        steps, decay, _ = plain.logit(layer, ids, plain.logits(ids).argmax(axis=1))
        return steps - decay
    found = plain.project(layer, ids, bias=bias)
    return found.cosine if score == "cosine" else found.gamma - found.decay


def check_end(stage: FinishedStage, index: int, end: str, expected: dict[int, Doubles], labels: dict[int, int]) -> None:
    """Compare one end of one ranking with sums by id."""
    ids, sums = (stage.read(f"{end}_{part}", index, index + 1)[0] for part in ("id", "sum"))
    sign = 1 if end == "top" else -1
    for query in range(len(ids)):
        known = {example: float(values[query]) for example, values in expected.items()}
        size = max(map(abs, known.values()))
        best = sorted(known.values(), reverse=end == "top")[: ids.shape[1]]
        np.testing.assert_allclose(sums[query], best, atol=CLOSE * size)
        np.testing.assert_allclose(sums[query], [known[i] for i in ids[query].tolist()], atol=CLOSE * size)
        assert (np.diff(sign * sums[query]) <= 0).all()
        assert len(set(ids[query].tolist())) == len(ids[query])
    found = stage.read(f"{end}_label", index, index + 1)[0]
    assert found.tolist() == [[labels[i] for i in row] for row in ids.tolist()]


@pytest.mark.parametrize("which", ["traced_run", "mlp_run"])
def test_the_examples_at_both_ends_of_every_ranking(
    request: pytest.FixtureRequest, retrain: Retrain, which: str
) -> None:
    run: Run = request.getfixturevalue(which)
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    labels = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    counted = [counts(which, step) for step in range(len(plain.steps))]
    scores = ("gamma", "cosine") if which == "mlp_run" else ("gamma",)
    rankings = [[layer, score] for score in scores for layer in plain.layers] + [[plain.layers[-1], "logit"]]
    assert stage.summary["rankings"] == rankings
    assert stage.read("top_id").shape == (len(rankings), len(ids), 4 if which == "mlp_run" else 5)
    for index, (layer, score) in enumerate(rankings):
        values = of_examples(plain, layer, score, ids, bias=which == "mlp_run")
        expected = plain.summed(values, counted)
        for end in ("top", "bottom"):
            check_end(stage, index, end, expected, labels)


def test_what_all_sum_to(mlp_run: "Run", retrain: Retrain) -> None:
    stage, ids = opened(mlp_run)
    plain = retrain(mlp_run, traces(mlp_run.plan)[0].training)
    reference = stage.read("reference")
    for index, (layer, score) in enumerate(stage.summary["rankings"]):
        if score == "gamma":
            np.testing.assert_allclose(reference[index], plain.project(layer, ids, bias=True).z_norm ** 2, rtol=1e-5)
        elif score == "cosine":
            assert np.isnan(reference[index]).all()
        else:
            np.testing.assert_allclose(reference[index], plain.logits(ids).max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("which", ["traced_run", "mlp_run"])
def test_init_decay_and_examples_make_up_the_representation(
    request: pytest.FixtureRequest, retrain: Retrain, which: str
) -> None:
    run: Run = request.getfixturevalue(which)
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    assert stage.summary["parts"] == ["init", "decay", "unrecorded", "examples"]
    for index, layer in enumerate(plain.layers):
        expected = plain.project(layer, ids, bias=which == "mlp_run")
        parts, square = stage.read("parts", index, index + 1)[0], stage.read("square", index, index + 1)[0]
        decay = expected.decay.sum(axis=0)
        by_hand = [expected.init, decay, np.zeros(len(ids)), expected.gamma.sum(axis=0) - decay]
        assert (np.abs(decay) > 1e-3 * square).all()
        np.testing.assert_allclose(parts, np.stack(by_hand, axis=1), atol=CLOSE * square.max())
        np.testing.assert_allclose(square, expected.z_norm**2, rtol=1e-5)
        np.testing.assert_allclose(parts.sum(axis=1), square, rtol=1e-5)  # complete


def test_unrecorded_steps_are_a_part_of_their_own(gapped_run: "Run", retrain: Retrain) -> None:
    stage, ids = opened(gapped_run)
    plain = retrain(gapped_run, traces(gapped_run.plan)[0].training)
    kept = [counts("gapped_run", step) for step in range(14)]
    labels = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    for index, layer in enumerate(plain.layers):
        gamma = plain.project(layer, ids, bias=True, displacement=True).gamma
        expected = plain.summed(gamma, kept)
        for end in ("top", "bottom"):
            check_end(stage, index, end, expected, labels)
        parts, square = stage.read("parts", index, index + 1)[0], stage.read("square", index, index + 1)[0]
        np.testing.assert_allclose(parts[:, 2], gamma[~np.array(kept)].sum(axis=0), atol=CLOSE * square.max())
        np.testing.assert_allclose(parts[:, 3], gamma[kept].sum(axis=0), atol=CLOSE * square.max())
        np.testing.assert_array_equal(parts[:, 1], 0)
        np.testing.assert_allclose(parts[:, 1:].sum(axis=1), square, rtol=1e-4)
    assert "ridge" not in stage.layout.arrays  # batches of several classes
    for query in range(len(ids)):
        residual = read_influence(stage).parts(query)["residual"]
        np.testing.assert_allclose(residual, 0, atol=1e-4)
    damaged = read_influence(stage)
    damaged.arrays["parts"][0, 0, 3] += 0.1 * damaged.arrays["square"][0, 0]
    assert damaged.parts(0)["residual"][0] == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("bias", [True, False])
def test_decay_between_steps_that_were_not_recorded(
    mlp: dict[str, Any], new_run: "Callable[[dict[str, Any]], Run]", retrain: Retrain, momentum: float, bias: bool
) -> None:
    optimizer = {"kind": "sgd", "lr": 0.02, "momentum": momentum, "nesterov": momentum > 0, "weight_decay": 0.05}
    train = {"batches": {"size": 3}, "optimizer": optimizer, "checkpoint_every": 5, "record": GAPS}
    mlp["networks"]["net"]["train"] |= train
    mlp["tracing"]["bias"] = bias
    run = new_run(mlp).finish()
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    kept = [counts("gapped_run", step) for step in range(14)]
    separable = [step < 4 for step in range(14)] if momentum else kept  # the velocity after a gap is unknown
    assert stage.summary["decay_unknown_from"] == ([4, 4] if momentum else [None, None])
    labels = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    for index, layer in enumerate(plain.layers):
        found = plain.project(layer, ids, bias=bias)
        decay = np.where(np.array(separable)[:, None], found.decay, 0)
        parts, square = stage.read("parts", index, index + 1)[0], stage.read("square", index, index + 1)[0]
        assert (np.abs(decay.sum(axis=0)) > 1e-3 * square).all()
        np.testing.assert_allclose(parts[:, 1], decay.sum(axis=0), atol=CLOSE * square.max())
        np.testing.assert_allclose(parts[:, 3], (found.gamma - decay)[kept].sum(axis=0), atol=CLOSE * square.max())
        np.testing.assert_allclose(parts.sum(axis=1), square, rtol=1e-4)
        for end in ("top", "bottom"):
            check_end(stage, index, end, plain.summed(found.gamma - decay, kept), labels)
    said = read_influence(stage).parts(0)
    assert said["decay"].isna().tolist() == [momentum > 0] * 2
    np.testing.assert_allclose(said["residual"], 0, atol=1e-4)


@pytest.mark.parametrize("bias_too", [True, False])
def test_what_is_not_trained_does_not_decay(
    mlp: dict[str, Any], new_run: "Callable[[dict[str, Any]], Run]", retrain: Retrain, bias_too: bool
) -> None:
    builder = f"{conftest.__name__}:frozen"
    mlp["networks"]["net"] |= {"model": builder, "arguments": {"bias_too": bias_too}}
    run = new_run(mlp).finish()
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    # A half of z decays and the other does not: their sum does not distinguish them.
    assert stage.summary["decay_unknown_from"] == [None if bias_too else 0, None]
    for index, layer in enumerate(plain.layers):
        found = plain.project(layer, ids, bias=True)
        decay = found.decay.sum(axis=0) if bias_too or index else np.zeros(len(ids))
        parts, square = stage.read("parts", index, index + 1)[0], stage.read("square", index, index + 1)[0]
        np.testing.assert_allclose(parts[:, 1], decay, atol=CLOSE * square.max())
        np.testing.assert_allclose(parts[:, 3], found.gamma.sum(axis=0) - decay, atol=CLOSE * square.max())
        if bias_too and not index:
            assert not parts[:, 1:].any()


@pytest.mark.parametrize("which", ["traced_run", "mlp_run", "gapped_run"])
def test_gamma_by_epoch_and_class(request: pytest.FixtureRequest, retrain: Retrain, which: str) -> None:
    run: Run = request.getfixturevalue(which)
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    labels = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    assert stage.summary["classes"] == list(range(10))
    for index, layer in enumerate(plain.layers):
        found = plain.project(layer, ids, bias=which != "traced_run", displacement=which == "gapped_run")
        expected = np.zeros((len(ids), 2, 10))
        for t, step in enumerate(plain.steps):
            for example in step.members.tolist() if counts(which, t) else []:
                share = (found.gamma[t] - found.decay[t]) / len(step.members)
                expected[:, step.epoch, labels[example]] += share
        size = np.abs(expected).max()
        np.testing.assert_allclose(stage.read("class_gamma", index, index + 1)[0], expected, atol=CLOSE * size)


def kernel(
    found: "Projected", chosen: NDArray[np.bool_], query: int, grid: Doubles, settings: dict[str, Any]
) -> Doubles:
    """Return the density of some steps' cosines, a Gaussian per step, by Alg. 3."""
    x, w = found.cosine[chosen, query], found.norm[chosen, query]
    p = w / w.sum()
    width = settings["bandwidth"]
    if settings["kind"] == "scott-factor":
        width *= np.sqrt(p @ (x - p @ x) ** 2 / (1 - p @ p))
    terms = [q * np.exp(-0.5 * ((grid - c) / width) ** 2) for q, c in zip(p, x, strict=True)]
    density: Doubles = np.sum(terms, axis=0) / (width * np.sqrt(2 * np.pi))
    return density


@pytest.mark.parametrize("which", ["traced_run", "mlp_run"])
def test_ridges_of_the_most_probable_classes(request: pytest.FixtureRequest, retrain: Retrain, which: str) -> None:
    run: Run = request.getfixturevalue(which)
    stage, ids = opened(run)
    plain = retrain(run, traces(run.plan)[0].training)
    logits, settings = plain.logits(ids), stage.summary["ridges"]
    shown = settings["classes"]
    np.testing.assert_array_equal(stage.read("ridge_class"), np.argsort(-logits, axis=1)[:, :shown])
    counted = np.array([counts(which, step) for step in range(len(plain.steps))])
    step_class, grid = np.array([step.label for step in plain.steps]), np.array(settings["grid"])
    assert (len(grid), grid[0], grid[-1]) == (201, -1.25, 1.25)
    for index, layer in enumerate(plain.layers):
        found = plain.project(layer, ids, bias=which == "mlp_run")
        for query, classes in enumerate(stage.read("ridge_class").tolist()):
            for place, label in enumerate(classes):
                chosen = counted & (step_class == label)
                total = found.norm[chosen, query].sum()
                assert stage.read("ridge_total")[index, query, place] == pytest.approx(total, rel=1e-5)
                density = stage.read("ridge", index, index + 1)[0, query, place]
                if settings["kind"] == "absolute" and total > 0:
                    np.testing.assert_allclose(density, kernel(found, chosen, query, grid, settings), atol=1e-4)
                elif chosen.sum() > 2 and total > 0:
                    expected = kernel(found, chosen, query, grid, settings)
                    np.testing.assert_allclose(density, expected, atol=2e-3 * expected.max())


def test_examples_and_queries_that_do_not_fit_together_give_the_same_bytes(
    traced_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = traced_run.at(str(tmp_path / "copy"))
    spec = traces(run.plan)[0].influence
    shutil.rmtree(Path(run.config.store, spec.path))
    monkeypatch.setattr(influence, "SUM_BYTES", 8 * 4 * 7)  # seven examples at a time
    monkeypatch.setattr(influence, "HISTOGRAM_BYTES", 1)  # one query
    (again,) = complete(run.job, INFLUENCE, [spec])
    before = open_finished(traced_run.job.store, spec)
    assert again.note["arrays"] == before.note["arrays"]
    assert {"top_id", "bottom_sum", "ridge", "ridge_total"} <= set(again.note["arrays"])
