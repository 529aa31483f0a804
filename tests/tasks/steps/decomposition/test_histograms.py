"""Features and the histograms that count the top-k, against plain loops; in parts of any size the same bytes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.engine.life import complete
from tasks.steps.decomposition import partials
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST, read_sets
from tasks.steps.decomposition.scores import SCORES, read_scores
from tests.plans import histograms, scores
from tests.tasks.steps.decomposition.loops import answer, counted, opened, plain

if TYPE_CHECKING:
    from tests.conftest import Run


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
    counts, sums = counted(learn.read("features").astype(np.float32), learn.read("label").astype(np.int64), 3, limit=2)
    np.testing.assert_array_equal(stage.read("counts"), counts)
    np.testing.assert_allclose(stage.read("absolute").astype(np.float64), sums, rtol=1e-14)
    order = [sorted(range(16), key=lambda j: (-counts[c, j], -sums[c, j], j)) for c in range(10)]
    np.testing.assert_array_equal(stage.read("order"), order)
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
    for spec in histograms(found):
        again.job.store.remove(spec.path)
        again.job.store.remove(spec.inputs["strongest"].path)
    for spec in scores(found):
        again.job.store.remove(spec.path)
    complete(again.job, STRONGEST, [spec.inputs["strongest"] for spec in histograms(found)])
    complete(again.job, HISTOGRAM, histograms(found))
    complete(again.job, SCORES, scores(found))
    for spec in histograms(found):
        one, other = opened(again, spec), opened(decomposed_run, spec)
        for name in one.layout.arrays:
            assert one.read(name).tobytes() == other.read(name).tobytes(), name
    for spec in scores(found):
        pairs = zip(*(read_scores(opened(run, spec)) for run in (again, decomposed_run)), strict=True)
        assert all(np.array_equal(a.correct, b.correct) and np.array_equal(a.agreeing, b.agreeing) for a, b in pairs)
    stage_of_sums = opened(again, found.histogram.inputs["strongest"])
    assert stage_of_sums.layout.partitions == (4 if range_values == 1 else 1)
