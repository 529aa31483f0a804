"""The stages of question 2 against plain loops over the network's own features."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.decomposition import choose_replaced, draw_normals
from tasks.decomposition.controls import CONTROLS
from tasks.io.networks import build_model
from tasks.io.tensors import unpack_tensors
from tasks.steps.decomposition import ablation, partials
from tasks.steps.decomposition.ablation import WHICHES, read_accuracies
from tasks.steps.decomposition.cost import BATCHES, read_times
from tasks.steps.decomposition.coverage import read_coverage
from tasks.steps.decomposition.features import open_head
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST, read_sets
from tasks.steps.decomposition.plan import Decomposed
from tasks.steps.decomposition.scores import SCORES, read_scores
from tasks.steps.life import complete
from tasks.steps.networks import WEIGHTS

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


def answer(run: "Run") -> Decomposed:
    """Return the only answer of a run."""
    (found,) = run.plan.decomposed
    return found


def opened(run: "Run", spec: StageSpec) -> FinishedStage:
    """Return a finished stage."""
    return open_finished(run.job.store, spec)


def model_of(run: "Run") -> nn.Sequential:
    """Return the trained network in float64."""
    training = opened(run, run.plan.trainings["small", 0])
    model = build_model("small-cnn", {"width": 8}, 0)
    model.load_state_dict(unpack_tensors(training.read_file(WEIGHTS)))
    assert isinstance(model, nn.Sequential)
    return model.double().eval()


def plain(run: "Run", spec: StageSpec) -> tuple[Doubles, Doubles, Ids]:
    """Return features, logits and labels of a split, computed sample by sample from the pixels."""
    stage, model = opened(run, spec), model_of(run)
    ids = stage.read("sample_id").astype(np.int64)
    features, logits = [], []
    with torch.inference_mode():
        for image in load_digits().images[ids]:
            x = torch.tensor(np.rint(image * 255 / 16) / 255)[None, None]
            features.append(model[:-1](x)[0].numpy())
            logits.append(model(x)[0].numpy())
    return np.stack(features), np.stack(logits), load_digits().target[ids]


def strongest(row: NDArray[np.floating], k1: int | float) -> list[int]:
    """Return the indices of an image that Algorithm 1 counts, one after the other."""
    order = sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))
    if isinstance(k1, int):
        return order[:k1]
    total, held, found = sum(abs(float(v)) for v in row), 0.0, []
    for j in order:
        if held >= k1 * total * (1 - 1e-12):
            break
        found.append(j)
        held += abs(float(row[j]))
    return found


def counted(
    features: NDArray[np.floating], labels: Ids, k1: int | float, limit: int | None = None
) -> tuple[Ids, Doubles]:
    """Return counts and sums of |x| by class from loops."""
    counts, sums, seen = np.zeros((10, features.shape[1]), np.int64), np.zeros((10, features.shape[1])), [0] * 10
    for row, label in zip(features, labels.tolist(), strict=True):
        sums[label] += np.abs(row.astype(np.float64))
        if limit is None or seen[label] < limit:
            for j in strongest(row, k1):
                counts[label, j] += 1
        seen[label] += 1
    return counts, sums


def test_features_are_the_heads_inputs_class_by_class(decomposed_run: "Run") -> None:
    for spec, per_class in ((answer(decomposed_run).learn, 12), (answer(decomposed_run).evaluate, 4)):
        stage = opened(decomposed_run, spec)
        features, logits, labels = plain(decomposed_run, spec)
        np.testing.assert_array_equal(stage.read("label"), np.repeat(np.arange(10), per_class))
        np.testing.assert_array_equal(stage.read("label"), labels)
        np.testing.assert_allclose(stage.read("features").astype(np.float64), features, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stage.read("logits").astype(np.float64), logits, rtol=1e-4, atol=1e-4)
        assert (stage.summary["features"], stage.summary["outputs"]) == (16, 10)
    learn, evaluate = (
        opened(decomposed_run, s) for s in (answer(decomposed_run).learn, answer(decomposed_run).evaluate)
    )
    assert not {*learn.read("sample_id").tolist()} & {*evaluate.read("sample_id").tolist()}


@pytest.mark.parametrize(("shown", "k1"), [("3", 3), ("coverage 0.6", 0.6)])
def test_histograms_count_the_strongest_features(decomposed_run: "Run", shown: str, k1: int | float) -> None:
    found = answer(decomposed_run)
    learn, stage = opened(decomposed_run, found.learn), opened(decomposed_run, found.histograms[shown])
    features, labels = learn.read("features").astype(np.float32), learn.read("label").astype(np.int64)
    counts, sums = counted(features, labels, k1)
    np.testing.assert_array_equal(stage.read("counts"), counts)
    np.testing.assert_allclose(stage.read("absolute").astype(np.float64), sums, rtol=1e-14)
    order = [sorted(range(16), key=lambda j: (-counts[c, j], -sums[c, j], j)) for c in range(10)]
    np.testing.assert_array_equal(stage.read("order"), order)
    np.testing.assert_array_equal(
        read_sets(decomposed_run.job.store, found.histograms[shown], 4), np.array(order)[:, :4]
    )
    doubles = features.astype(np.float64)
    np.testing.assert_allclose(stage.read("overall_mean").astype(np.float64), doubles.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stage.read("overall_std").astype(np.float64), doubles.std(0), rtol=1e-9)
    assert stage.summary == {"signed": False}
    if isinstance(k1, int):
        assert counts.sum(1).tolist() == [k1 * 12] * 10


def test_the_first_images_of_each_class_count_alone(decomposed_run: "Run") -> None:
    found = answer(decomposed_run)
    learn, stage = opened(decomposed_run, found.learn), opened(decomposed_run, found.need[2])
    counts, _ = counted(learn.read("features").astype(np.float32), learn.read("label").astype(np.int64), 3, limit=2)
    np.testing.assert_array_equal(stage.read("counts"), counts)
    assert stage.read("images").tolist() == [2] * 10


@pytest.mark.parametrize("range_values", [1, 64_000_000])
@pytest.mark.parametrize("chunk_values", [16, 7 * 16, 2_000_000])
def test_neither_ranges_nor_chunks_change_a_byte(
    decomposed_run: "Run", tmp_path: Any, monkeypatch: pytest.MonkeyPatch, range_values: int, chunk_values: int
) -> None:  # Any: a path
    monkeypatch.setattr(partials, "CHUNK_VALUES", chunk_values)
    monkeypatch.setattr(partials, "rows_per_range", lambda d: 32 if range_values == 1 else 1024)
    again = decomposed_run.at(str(tmp_path / "again"))
    found = answer(again)
    for spec in found.all_histograms:
        again.job.store.remove(spec.path)
        again.job.store.remove(spec.inputs["strongest"].path)
    for spec in found.all_scores:
        again.job.store.remove(spec.path)
    complete(again.job, STRONGEST, [spec.inputs["strongest"] for spec in found.all_histograms])
    complete(again.job, HISTOGRAM, found.all_histograms)
    complete(again.job, SCORES, found.all_scores)
    for spec in found.all_histograms:
        one, other = opened(again, spec), opened(decomposed_run, spec)
        for name in one.layout.arrays:
            assert one.read(name).tobytes() == other.read(name).tobytes(), name
    for spec in found.all_scores:
        pairs = zip(*(read_scores(opened(run, spec)) for run in (again, decomposed_run)), strict=True)
        assert all(np.array_equal(a.correct, b.correct) and np.array_equal(a.agreeing, b.agreeing) for a, b in pairs)
    strongest_stage = opened(again, found.histogram.inputs["strongest"])
    assert strongest_stage.layout.partitions == (4 if range_values == 1 else 1)


def masked(features: Doubles, head: nn.Linear, sets: Ids) -> Doubles:
    """Return the logits of a head that reads only its sets, from loops."""
    assert head.bias is not None
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    found = np.empty((len(features), len(weight)))
    for row, x in enumerate(features):
        for c in range(len(weight)):
            found[row, c] = bias[c] + sum(weight[c, j] * x[j] for j in sets[c])
    return found


def test_heads_are_scored_as_loops_score_them(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, full, labels = plain(decomposed_run, found.evaluate)
    head = open_head(store, found.evaluate, torch.device("cpu"))
    (whole,) = read_scores(opened(decomposed_run, found.full))
    assert whole.accuracy == np.mean(full.argmax(1) == labels)
    assert whole.agreement == 1.0
    for (shown, k2), spec in found.grid.items():
        predicted = masked(features, head, read_sets(store, found.histograms[shown], k2)).argmax(1)
        (score,) = read_scores(opened(decomposed_run, spec))
        assert score.accuracy == np.mean(predicted == labels)
        assert score.agreement == np.mean(predicted == full.argmax(1))
        right = [int(((predicted == labels) & (labels == c)).sum()) for c in range(10)]
        assert score.correct.tolist() == right
    assert len(found.grid) == 4


def test_controls_are_scored_with_the_same_number_of_features(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, _, labels = plain(decomposed_run, found.evaluate)
    learn = opened(decomposed_run, found.learn)
    x, y = learn.read("features").astype(np.float64), learn.read("label")
    head = open_head(store, found.evaluate, torch.device("cpu"))
    weight = head.weight.detach().double().numpy()
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    own = {
        "class-mean": means,
        "class-mean-minus-overall": means - x.mean(0),
        "weight": weight,
        "abs-weight": abs(weight),
        "mean-times-weight": means * weight,
    }
    for name, values in own.items():
        sets = np.argsort(-values, axis=1, kind="stable")[:, :4]
        (score,) = read_scores(opened(decomposed_run, found.controls[name]))
        assert score.accuracy == np.mean(masked(features, head, sets).argmax(1) == labels), name
    assert set(found.controls) == set(CONTROLS)
    draws = read_scores(opened(decomposed_run, found.controls["random"]))
    assert len(draws) == 3
    assert len({tuple(score.correct.tolist()) for score in draws}) > 1


def test_a_smaller_sample_is_scored_with_its_own_sets(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, _, labels = plain(decomposed_run, found.evaluate)
    head = open_head(store, found.evaluate, torch.device("cpu"))
    predicted = masked(features, head, read_sets(store, found.need[2], 4)).argmax(1)
    (score,) = read_scores(opened(decomposed_run, found.need_scores[2]))
    assert score.accuracy == np.mean(predicted == labels)


def test_coverage_is_measured_image_by_image(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    learn, sets = opened(decomposed_run, found.learn), read_sets(decomposed_run.job.store, found.histogram, 4)
    weight = open_head(store, found.learn, torch.device("cpu")).weight.detach().double().numpy()
    shares: dict[int, list[list[float]]] = {c: [] for c in range(10)}
    for x, label in zip(learn.read("features").astype(np.float64), learn.read("label").tolist(), strict=True):
        helping = np.maximum(weight[label] * x, 0)
        own = sorted(abs(x), reverse=True)[:3]
        chosen = sets[label]
        shares[label].append(
            [abs(x[chosen]).sum() / abs(x).sum(), helping[chosen].sum() / helping.sum(), sum(own) / abs(x).sum()]
        )
    expected = np.array([np.mean(shares[c], axis=0) for c in range(10)])
    coverage = read_coverage(store, found.coverage)
    np.testing.assert_allclose(coverage.l1_shares(), expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(coverage.contribution_shares(), expected[:, 1], rtol=1e-12)
    np.testing.assert_allclose(coverage.top_shares()[:, 0], expected[:, 2], rtol=1e-12)


@pytest.mark.parametrize("noise", ["standard", "feature_moments"])
@pytest.mark.parametrize("scope", ["label", "predicted", "union"])
def test_noise_takes_the_place_of_features(decomposed_run: "Run", noise: str, scope: str) -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, logits, labels = plain(decomposed_run, found.evaluate)
    ids = opened(decomposed_run, found.evaluate).read("sample_id").astype(np.int64)
    learned = opened(decomposed_run, found.learn).read("features").astype(np.float64)
    sets = read_sets(store, found.histogram, 4)
    model = model_of(decomposed_run)
    accuracies = read_accuracies(opened(decomposed_run, found.ablations[noise, scope]))
    asked = labels if scope != "predicted" else logits.argmax(1)
    assert (logits.argmax(1) != labels).any()
    for draw in range(2):
        normals = draw_normals(ids, 16, seed=0, draw=draw)
        if noise == "feature_moments":
            normals = learned.mean(0) + learned.std(0) * normals
        equal = choose_replaced(sets, 16, "equal-size", scope=scope, seed=0, draw=draw)  # type: ignore[arg-type]  # a str
        for which in WHICHES:
            right = 0
            for x, label, own, new in zip(features, labels, asked, normals, strict=True):
                members = {*sets[own].tolist()} if scope != "union" else {*sets.ravel().tolist()}
                given = {
                    "influential": members,
                    "others": {*range(16)} - members,
                    "equal-size": {*np.flatnonzero(equal[own]).tolist()},
                }[which]
                if which == "equal-size":
                    assert not given & members
                    assert len(given) == min(len(members), 16 - len(members))
                changed = [new[j] if j in given else x[j] for j in range(16)]
                with torch.inference_mode():
                    right += int(model[-1](torch.tensor(changed)).argmax() == label)
            assert accuracies[which][draw] == right / len(labels), (which, draw)


def test_the_cost_is_that_of_the_layers(decomposed_run: "Run") -> None:
    found = answer(decomposed_run)
    summary = opened(decomposed_run, found.cost).summary
    convolutions = 8 * 8 * 8 * 9 * 1 + 4 * 4 * 16 * 9 * 8 + 4 * 4 * 16 * 9 * 16
    assert summary == {"total": convolutions + 160, "head": 160, "decomposed": 40, "depth": 4}
    times = read_times(decomposed_run.job.store, found.cost)
    assert [row["batch"] for row in times] == list(BATCHES)
    assert all(row["dense_ms"] > 0 and row["decomposed_ms"] > 0 for row in times)


def test_the_gallery_shows_where_features_are(decomposed_run: "Run") -> None:
    found = answer(decomposed_run)
    assert found.gallery is not None
    stage, evaluate = opened(decomposed_run, found.gallery), opened(decomposed_run, found.evaluate)
    model, order = model_of(decomposed_run), opened(decomposed_run, found.histogram).read("order").astype(np.int64)
    maps = stage.read("maps").astype(np.float64)
    assert maps.shape == (3, 3, 8, 8)
    for row, (sample, label) in enumerate(zip(stage.read("sample_id"), stage.read("label").tolist(), strict=True)):
        x = torch.tensor(np.rint(load_digits().images[sample] * 255 / 16) / 255)[None, None]
        with torch.inference_mode():
            last = model[:9](x)[0].numpy()
        mean = last.mean(0)
        expected = [mean, last[order[label, -4:]].mean(0) - mean, last[order[label, :4]].mean(0) - mean]
        for kind, small in enumerate(expected):
            np.testing.assert_allclose(maps[row, kind].mean(), small.mean(), atol=1e-4)
            np.testing.assert_allclose(maps[row, kind, 0, 0], small[0, 0], atol=1e-4)  # corners are kept
            np.testing.assert_allclose(maps[row, kind, -1, -1], small[-1, -1], atol=1e-4)
    assert set(stage.read("sample_id").tolist()) <= set(evaluate.read("sample_id").tolist())


def shorter(tree: Tree, **asked: object) -> Tree:
    """Return the config of a network that errs, without gates, with other questions."""
    tree["networks"]["small"]["train"]["epochs"] = 2
    del tree["networks"]["small"]["train"]["gates"]
    tree["decomposition"] = {"networks": ["small"], "k1": 3, "k2": 2, "gallery": 0, "ablation": None, **asked}
    return tree


def test_predictions_can_stand_for_labels(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    run = new_run(shorter(decomposed_tree, group_by="prediction")).finish()
    found = answer(run)
    learn, stage = opened(run, found.learn), opened(run, found.histogram)
    features = learn.read("features").astype(np.float32)
    predicted = learn.read("logits").astype(np.float32).argmax(1)
    assert (predicted != learn.read("label")).any()
    counts, _ = counted(features, predicted, 3)
    np.testing.assert_array_equal(stage.read("counts"), counts)
    np.testing.assert_array_equal(stage.read("images"), np.bincount(predicted, minlength=10))
    coverage, sets = read_coverage(run.job.store, found.coverage), read_sets(run.job.store, found.histogram, 2)
    for label in np.unique(predicted).tolist():
        rows = abs(features[predicted == label].astype(np.float64))
        expected = (rows[:, sets[label]].sum(1) / rows.sum(1)).mean()
        np.testing.assert_allclose(coverage.l1_shares()[label], expected, rtol=1e-12)


@pytest.mark.parametrize("rank_by", ["value", "contribution"])
def test_other_ways_to_be_strong(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"], rank_by: str) -> None:
    run = new_run(shorter(decomposed_tree, rank_by=rank_by, dtype="float16")).finish()
    found = answer(run)
    learn = opened(run, found.learn)
    assert learn.layout.arrays["features"].dtype == "float16"
    weight = open_head(run.job.store, found.learn, torch.device("cpu")).weight.detach().double().numpy()
    counts = np.zeros((10, 16), np.int64)
    for x, label in zip(learn.read("features").astype(np.float64), learn.read("label").tolist(), strict=True):
        scores = weight[label] * x if rank_by == "contribution" else x
        for j in sorted(range(16), key=lambda j: (-scores[j], j))[:3]:
            counts[label, j] += 1
    np.testing.assert_array_equal(opened(run, found.histogram).read("counts"), counts)


def test_outputs_without_images_change_nothing(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    """A network that can say 13 classes, of which the data have 10."""
    tree = shorter(decomposed_tree, ablation={"scopes": ["label", "predicted", "union"], "draws": 2})
    tree["networks"]["small"]["arguments"]["classes"] = 13
    run = new_run(tree).finish()
    found = answer(run)
    histogram = opened(run, found.histogram)
    assert histogram.read("images").tolist() == [12] * 10 + [0] * 3
    sets = read_sets(run.job.store, found.histogram, 2)
    union = {*sets[:10].ravel().tolist()}
    assert {*sets[10:].ravel().tolist()} - union, "the sets of no images must be others for this to show anything"
    evaluate = opened(run, found.evaluate)
    head = open_head(run.job.store, found.evaluate, torch.device("cpu"))
    features, labels = evaluate.read("features").astype(np.float32), evaluate.read("label").astype(np.int64)
    normals = draw_normals(evaluate.read("sample_id").astype(np.int64), 16, seed=0, draw=0)
    changed = np.where(np.isin(np.arange(16), [*union]), normals.astype(np.float32), features)
    with torch.inference_mode():
        expected = float((head(torch.from_numpy(changed)).argmax(1).numpy() == labels).mean())
    assert read_accuracies(opened(run, found.ablations["standard", "union"]))["influential"][0] == expected


def test_what_was_asked_before_is_kept(decomposed_run: "Run", tmp_path: Any, new_run: Callable[[Tree], "Run"]) -> None:
    """Another k1, k2 or noise makes its own stages and no other."""
    tree = copy.deepcopy(decomposed_run.tree)
    tree["decomposition"]["k1"].append(5)
    tree["decomposition"]["k2"].append(3)
    tree["decomposition"]["ablation"]["noises"].append("zero")
    before, after = decomposed_run.plan.stages, new_run(tree).plan.stages
    added = [spec for spec in after if spec not in before]
    # k1: a count, a histogram and its three scores; k2: scores of two k1 more
    kinds = sorted(spec.stage for spec in added)
    assert kinds == sorted(["strongest", "histogram", *["head-scores"] * 5, *["ablation"] * 3])
    assert [spec for spec in before if spec not in after] == []


def test_ablations_are_made_of_the_same_draws_together_and_apart(
    decomposed_run: "Run", tmp_path: Any
) -> None:  # Any: a path
    again = decomposed_run.at(str(tmp_path / "again"))
    for spec in answer(again).ablations.values():
        again.job.store.remove(spec.path)
        complete(again.job, ablation.ABLATION, [spec])
        one, other = opened(again, spec), opened(decomposed_run, spec)
        assert one.read("correct").tobytes() == other.read("correct").tobytes()
