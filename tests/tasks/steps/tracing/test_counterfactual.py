"""Counterfactual influence and TracIn of a real run, by central differences and sums in a plain float64 loop."""

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from configs.load import ConfigError
from configs.schema import Config
from flows.plan import make_plan
from flows.progress import existing_store, planned_stages
from storage.stages import find_finished, open_finished, read_marker
from storage.stores import StoreError
from tasks.cluster.parallel import PartitionError
from tasks.steps.report import write_report
from tasks.steps.tracing import rerun
from tasks.steps.tracing.counterfactual import read_derivatives, read_growth
from tasks.steps.tracing.rerun import check_exact
from tasks.steps.tracing.results import tracing_results
from tasks.steps.tracing.retraining import subset
from tasks.steps.tracing.tracin import read_tracin
from tests.plans import traces
from tests.tasks.steps.tracing.loops import H, Loop, NewRun, compared, counter_tree, spearman

if TYPE_CHECKING:
    from tests.conftest import Run

PRIVATE = {"training_images": "none"}


@pytest.fixture(scope="module")
def counter_run(tmp_path_factory: pytest.TempPathFactory, new_run: NewRun) -> "Run":
    """A finished run: not to be changed."""
    return new_run(counter_tree(tmp_path_factory.mktemp("counter") / "store")).finish()


def test_derivatives_equal_central_differences(counter_run: "Run") -> None:
    loop, found = (
        Loop(counter_run),
        read_derivatives(counter_run.job.store, compared(counter_run).inputs["counterfactual"]),
    )
    assert found.shape == (3, 20)
    for position in range(20):
        weights = torch.ones(20, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            weights[position] = 1 + sign * H
            ends.append(loop.margins(weights))
        # The run's own states are float32: its training is another one by rounding.
        expected = (ends[0] - ends[1]) / (2 * H)
        np.testing.assert_allclose(found[:, position], expected, rtol=1e-3, atol=1e-5)


def test_tracin_sums_products_of_gradients(counter_run: "Run") -> None:
    loop, expected = Loop(counter_run), np.zeros((3, 20))
    rate = loop.settings["optimizer"]["lr"]

    def look(model: torch.nn.Module, step: int) -> None:
        (position,) = loop.batches[step].tolist()
        parameters = list(model.parameters())
        own = torch.autograd.grad(F.cross_entropy(model(loop.x[[position]]), loop.y[[position]]), parameters)
        for q in range(3):
            loss = F.cross_entropy(model(loop.queries[[q]]), loop.classes[[q]])
            theirs = torch.autograd.grad(loss, parameters)
            expected[q, position] += rate * sum(float((a * b).sum()) for a, b in zip(own, theirs, strict=True))

    loop.trained(torch.ones(20, dtype=torch.float64), look)
    found = read_tracin(counter_run.job.store, compared(counter_run).inputs["tracin"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("role", ["same_order", "left_out"])
def test_retrainings_in_the_same_order_leave_the_steps_out(counter_run: "Run", role: str) -> None:
    spec = compared(counter_run).inputs[role]
    loop, found = Loop(counter_run), open_finished(counter_run.job.store, spec).read("margin")
    for index in range(3):
        weights = torch.zeros(20, dtype=torch.float64)
        kept = subset(spec, index, 20)
        assert len(kept) == (10 if role == "same_order" else 16)
        weights[kept] = 1
        np.testing.assert_allclose(found[index], loop.margins(weights), rtol=1e-3, atol=1e-5)


def test_checks_of_scores_are_recomputed(counter_run: "Run") -> None:
    spec, store = compared(counter_run), counter_run.job.store
    rows = {row["score"]: row["checks"] for row in open_finished(store, spec).summary["rows"]}
    assert list(rows) == [
        *("counterfactual", "tracin", "same class", "nearest in pixels", "nearest in features"),
        *("KNN-Shapley in pixels", "random"),
    ]
    loop = Loop(counter_run)
    same = (loop.classes.numpy()[:, None] == loop.y.numpy()).astype(float)
    scores = {
        "counterfactual": read_derivatives(store, spec.inputs["counterfactual"]),
        "tracin": read_tracin(store, spec.inputs["tracin"]),
        "same class": same,
    }
    for role, check in (("retraining", "LDS"), ("same_order", "LDS, same order")):
        margins = open_finished(store, spec.inputs[role]).read("margin").astype(np.float64)
        for name, score in scores.items():
            predicted = np.stack([score[:, subset(spec.inputs[role], i, 20)].sum(axis=1) for i in range(3)])
            each = [spearman(predicted[:, q], margins[:, q]) for q in range(3)]
            assert rows[name][check]["value"] == pytest.approx(np.mean(each))
    margins = open_finished(store, spec.inputs["left_out"]).read("margin").astype(np.float64)
    out = [np.setdiff1d(np.arange(20), subset(spec.inputs["left_out"], i, 20)) for i in range(3)]
    predicted = -np.stack([scores["counterfactual"][:, positions].sum(axis=1) for positions in out])
    validity = np.mean([spearman(predicted[:, q], margins[:, q]) for q in range(3)])
    assert rows["counterfactual"]["validity"]["value"] == pytest.approx(validity)


def test_growth_has_every_step_and_the_page_shows_it(counter_run: "Run") -> None:
    growth = read_growth(counter_run.job.store, compared(counter_run).inputs["counterfactual"])
    assert growth["step"].tolist() == list(range(40))
    assert (growth["growth"] > 0).all()
    page = tracing_results(counter_run.job.store, traces(counter_run.plan), "show")
    assert len(page.growth) == 40
    query = page.queries[0]
    assert [layer.layer for layer in query.layers][-2:] == ["tracin", "counterfactual"]
    scores = read_derivatives(counter_run.job.store, compared(counter_run).inputs["counterfactual"])[0]
    best = query.layers[-1].positive
    ids = Loop(counter_run).rows["id"].to_numpy()
    order = np.argsort(-scores)[: len(best)]
    assert best["sample_id"].tolist() == ids[order].tolist()
    np.testing.assert_allclose(best["share"], scores[order] / np.abs(scores).sum())
    evaluation = page.evaluation
    assert set(evaluation[evaluation["measure"] == "validity"]["score"]) == {"counterfactual"}


def test_a_killed_stage_goes_on_with_the_adjoint(
    counter_run: "Run", new_run: NewRun, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(counter_tree(tmp_path / "store"))
    passed, calls = rerun.Rerun.passed, []

    def dies(self: rerun.Rerun, segment: Any) -> Any:  # Any: passed on
        calls.append(segment.number)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return passed(self, segment)

    monkeypatch.setattr(rerun.Rerun, "passed", dies)
    with pytest.raises(PartitionError, match="killed"):
        run.finish()
    assert calls == [2, 1]
    spec = compared(run).inputs["counterfactual"]
    assert find_finished(run.job.store, spec.path) is None
    monkeypatch.setattr(rerun.Rerun, "passed", passed)
    run.finish()
    whole, again = (open_finished(one.job.store, spec).note for one in (counter_run, run))
    assert whole["arrays"] == again["arrays"]
    assert whole["files"] == again["files"]


def test_ids_of_training_images_stay_in_the_store(counter_run: "Run", new_run: NewRun, tmp_path: Any) -> None:
    """With `none` the panels of the whole network show classes alone."""
    made = new_run({**copy.deepcopy(counter_run.at(str(tmp_path / "store")).tree), "report": PRIVATE})
    write_report(made.job.store, made.plan.made(), created="today", reused=frozenset())
    text = (tmp_path / "store" / "reports" / "mlp" / "tracing.html").read_text()
    ids = Loop(counter_run).rows["id"].tolist()
    assert "counterfactual" in text
    assert not [i for i in ids if f"sample {i}<" in text]


def test_gaps_are_refused_before_the_run(tmp_path: Any) -> None:
    tree = counter_tree(tmp_path / "store")
    tree["networks"]["net"]["train"]["record"] = {"steps": [[0, 10]]}
    check_refused(tree, "`steps`, which leaves some out")


def check_refused(tree: Any, found: str) -> None:
    """Check that both scores that need exact weights are refused by what is found in place of them."""
    for key in ("counterfactual", "scores"):
        asked = copy.deepcopy(tree)
        if key == "scores":
            del asked["tracing"]["counterfactual"]
        assert planning(asked) == (
            f"tracing.{key}: expected an archive of net seed 0 with the exact weights of every step, found {found}; "
            "set networks.net.train.record.kind to dense or replay, without `steps`"
        )


def test_an_archive_that_auto_would_round_is_refused_before_the_run_unless_it_is_begun_as_another(
    counter_run: "Run", new_run: NewRun, tmp_path: Any
) -> None:
    """The budget 20 kB leaves hybrid, the first run made a dense archive; then a hybrid one by a budget's change."""
    tree = counter_tree(tmp_path / "store")
    tree["networks"]["net"]["train"]["record"] = {"archive_budget": "20kB"}
    check_refused(tree, "kind 'hybrid' (chosen by `auto`), which rounds them")
    made = counter_run.at(str(tmp_path / "made")).tree
    assert planning({**made, "networks": tree["networks"]}) == ""
    del tree["tracing"]["counterfactual"]
    tree["tracing"]["scores"] = ["gamma"]
    new_run(tree).finish()
    begun = counter_tree(tmp_path / "store")
    assert "kind 'hybrid' (chosen by `auto`), which rounds them" in planning(begun)
    begun["networks"]["net"]["train"]["record"] = {"kind": "replay"}
    assert planning(begun) == ""  # another training


def test_an_archive_that_a_training_fell_back_to_is_refused_if_it_rounds(
    counter_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay whose steps do not repeat is recorded as hybrid, which without a tolerance keeps every bit."""
    training = traces(counter_run.plan)[0].training
    train = training.place["train"]
    survey: Any = SimpleNamespace(begun=lambda spec: {"recording": {"kind": "hybrid"}})
    settings = {"kind": "replay", "layers": None, "steps": None, "archive_budget": "20GB"}
    monkeypatch.setitem(train, "record", {**settings, "tolerance": 0.001})
    with pytest.raises(
        ValueError, match=r"found kind 'hybrid', since this training does not repeat its own steps; it rounds them; set"
    ) as error:
        rerun.check_record(training, survey, "tracing.counterfactual")
    assert "networks.net.train.record.kind to dense, without `steps`" in str(error.value)
    monkeypatch.setitem(train, "record", {**settings, "tolerance": 0.0})
    rerun.check_record(training, survey, "tracing.counterfactual")


def test_a_fall_back_to_hybrid_without_a_tolerance_gives_the_same_derivatives(
    counter_run: "Run", new_run: NewRun, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.recording.preflight.first_difference", lambda *_: (0, "1"))
    tree = counter_tree(tmp_path / "store")
    tree["networks"]["net"]["train"]["record"] = {"kind": "replay", "tolerance": 0}
    run = new_run(tree).finish()
    training = traces(run.plan)[0].training
    assert read_marker(run.job.store, training.path, 0)["numbers"]["recording"]["kind"] == "hybrid"
    assert planning(tree) == ""  # finished as hybrid
    found, dense = (
        read_derivatives(one.job.store, compared(one).inputs["counterfactual"]) for one in (run, counter_run)
    )
    np.testing.assert_array_equal(found, dense)


def planning(tree: Any) -> str:
    """Return the message that refuses a config's plan, empty without one."""
    config = Config.model_validate(tree)
    try:
        planned_stages(make_plan(config), existing_store(config))
    except ConfigError as error:
        return str(error)
    return ""


def test_archives_that_round_are_refused(counter_run: "Run") -> None:
    training = traces(counter_run.plan)[0].training
    rounded: Any = SimpleNamespace(kind="hybrid", exactness={"1": 5e-4}, recorded=np.ones(3, bool))
    with pytest.raises(
        ValueError, match=r"^tracing.counterfactual: .*found one of kind 'hybrid', which rounds them; set"
    ):
        check_exact(rounded, training, "tracing.counterfactual")
    gaps: Any = SimpleNamespace(kind="dense", exactness={"1": 0.0}, recorded=np.array([True, False]))
    with pytest.raises(ValueError, match=r"found 1 steps that are not recorded; set networks.net.train.record.kind to"):
        check_exact(gaps, training, "tracing.counterfactual")


def test_other_weights_than_the_recorded_ones_are_an_error(counter_run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with other arithmetic would make other weights: the check is on every bit."""
    training = traces(counter_run.plan)[0].training
    made = rerun.Rerun(counter_run.job.store, training, torch.device("cpu"), "tracing.counterfactual", "float32")
    segment = made.source.segments()[1]
    made.passed(segment)
    object.__setattr__(
        made._trainer.samples, "fetch", lambda picked: (torch.rand(len(picked), 1, 8, 8), torch.zeros(1).long())
    )
    with pytest.raises(
        StoreError, match=r"expected the recorded state after step 31, found another; run on the machine"
    ):
        made.passed(segment)
