"""The images that a page shows for a few neurons: which neurons, which images, and what is outlined."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.figures.outline import BRIGHT
from tasks.io.mini_broden import MiniBrodenSource
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts.exemplars import (
    ABOVE,
    EXEMPLARS,
    FILE,
    IMAGES,
    choose_neurons,
    exemplars_spec,
    read_exemplars,
)
from tests.tasks.steps.concepts.probing import COUNT, DEAD, SIZE, Probing, content, lose, probing
from tests.tasks.steps.concepts.stand_ins import neurons_stage

SHOWN = 3


def best_words(words: list[int], similarity: list[float], tau: float = 0.5, dead: tuple[int, ...] = ()) -> pd.DataFrame:
    """Return the best word of each neuron."""
    n = len(words)
    gone = np.isin(np.arange(n), dead)
    values = np.array(similarity)
    columns = {"similarity": values, "interpretable": (values > tau) & ~gone, "dead": gone}
    return pd.DataFrame({"neuron": np.arange(n), "word": words, **columns})


@pytest.mark.parametrize(
    ("count", "tracked", "expected"),
    [
        (3, [], [1, 4, 0]),  # words 7, 2, then the second of word 7
        (4, [], [1, 4, 0, 2]),
        (5, [], [1, 4, 0, 2, 3]),  # neurons that are not interpretable follow
        (2, [3], [3, 1]),
        (3, [1], [1, 0, 4]),
        (1, [4, 2], [4, 2]),  # all that are tracked
        (9, [], [1, 4, 0, 2, 3, 5]),  # the dead one last
    ],
)
def test_neurons_are_spread_over_words(count: int, tracked: list[int], expected: list[int]) -> None:
    best = best_words([7, 7, 7, 5, 2, 6], [0.8, 0.9, 0.7, 0.3, 0.6, 0.4], dead=(5,))
    np.testing.assert_array_equal(choose_neurons(best, count, tracked), expected)


def run_of(place: Path, **more: Any) -> tuple[Probing, list[int]]:
    """Return a probing set, and the neurons of `conv` that are shown."""
    run = probing(place, shown=SHOWN, track={"conv": [4]}, **more)
    return run, [4, 5, 0]


def spec_of(run: Probing) -> StageSpec:
    """Return the spec of the pictures of three layers."""
    embedding = np.zeros((6, 2), np.float32)
    words, similarity = [0, 1, 2, 3, 4, 5], [0.8, 0.1, 0.0, 0.2, 0.3, 0.9]
    best = best_words(words, similarity, dead=(DEAD,))
    few = best_words(words[:5], similarity[:5], dead=(DEAD,))
    stages = [
        neurons_stage(run.job, run.responses["conv"], "conv", best, embedding),
        neurons_stage(run.job, run.responses["tokens"], "tokens", best, embedding),
        neurons_stage(run.job, run.responses["fc"], "fc", few, embedding[:5]),
    ]
    return exemplars_spec(run.responses, stages, run.asked)


def test_the_most_activating_images_are_shown_with_their_region(tmp_path: Path) -> None:
    run, neurons = run_of(tmp_path, pool="max")
    finished = run.make(EXEMPLARS, spec_of(run))
    table, pictures = read_table(finished.read_file(FILE), ""), finished.read("picture")
    assert pictures.shape == (3 * SHOWN * IMAGES, 96, 96, 3)
    images = np.stack([np.asarray(s.image) for s in MiniBrodenSource(COUNT, SIZE, 0).read(run.keys())])
    ids = open_finished(run.job.store, run.responses["conv"]).read("sample_id")
    positions = {int(sample): position for position, sample in enumerate(ids)}
    for layer, chosen in (("conv", neurons), ("tokens", [5, 0, 4]), ("fc", [0, 4, 3])):
        maps = run.maps(layer)
        rows = table[table["layer"] == layer]
        np.testing.assert_array_equal(rows["neuron"], np.repeat(chosen, IMAGES))
        np.testing.assert_array_equal(rows["rank"], np.tile(np.arange(IMAGES), SHOWN))
        pooled = run.pooled(layer).astype(float)
        for neuron in chosen:
            mine = rows[rows["neuron"] == neuron]
            best = np.sort(pooled[:, neuron])[::-1][:IMAGES]
            np.testing.assert_array_equal(mine["activation"], best.astype(np.float32))
            at = [positions[sample] for sample in mine["sample_id"]]
            np.testing.assert_array_equal(pooled[at, neuron], best)
            for index, position in zip(mine.index, at, strict=True):
                check_picture(pictures[index], images[position], maps[position, neuron], maps[:, neuron], layer)


def check_picture(
    picture: np.ndarray, image: np.ndarray, values: np.ndarray, everything: np.ndarray, layer: str
) -> None:
    """Compare a picture with an image that is three times as large, and the edge of the region in it."""
    bright = (picture == BRIGHT).all(axis=-1)
    plain = image.repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(picture[~bright], plain[~bright])
    if layer == "fc":
        assert not bright.any()
        return
    large = F.interpolate(torch.from_numpy(values)[None, None], (96, 96), mode="bilinear", align_corners=False)[0, 0]
    if layer == "tokens":
        return  # the class token counts for the level; the next test looks at maps
    region = large.numpy() > np.quantile(everything, 1 - ABOVE)
    edge = np.zeros_like(region)
    for row, column in np.argwhere(region):
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        edge[row, column] = any(not (0 <= r < 96 and 0 <= c < 96) or not region[r, c] for r, c in around)
    assert edge.any()
    # one image at a time here, batches there: the last digits may differ
    assert (edge != bright).mean() < 0.001


def test_the_results_name_each_picture_once(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path)
    spec = spec_of(run)
    finished = run.make(EXEMPLARS, spec)
    answers = [SimpleNamespace(exemplars=spec, network="small", seed=3), SimpleNamespace(exemplars=None)]
    table, pictures = read_exemplars(run.job.store, answers)  # type: ignore[arg-type]
    assert list(table.columns) == [
        *("network", "seed", "layer", "neuron", "rank", "sample_id", "activation", "picture"),
    ]
    assert set(table["network"]) == {"small"}
    for key, picture in zip(table["picture"], finished.read("picture"), strict=True):
        np.testing.assert_array_equal(pictures[key], picture)
    assert len(pictures) == len(np.unique(finished.read("picture"), axis=0))
    assert spec.place["track"] == {"conv": [4]}
    empty, nothing = read_exemplars(run.job.store, answers[1:])  # type: ignore[arg-type]
    assert len(empty) == len(nothing) == 0


def test_a_killed_stage_gives_the_same_bytes(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path)
    spec = spec_of(run)
    run.make(EXEMPLARS, spec)
    before = content(run.job, spec)
    lose(tmp_path, spec, 0)
    run.make(EXEMPLARS, spec)
    assert content(run.job, spec) == before


def test_an_unknown_neuron_is_refused_by_the_plan(tmp_path: Path) -> None:
    run = probing(tmp_path, track={"fc": [1, 5]})
    spec = exemplars_spec(run.responses, [], run.asked)
    with pytest.raises(ValueError, match=r"^concepts\.track\.fc: expected neurons below 5, found 5$"):
        EXEMPLARS.size(spec, PlanSurvey(None))


def test_the_size_is_a_bound(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path)
    spec = spec_of(run)
    finished = run.make(EXEMPLARS, spec)
    assert finished.layout.n_bytes <= EXEMPLARS.size(spec, PlanSurvey(None)).written


def test_neurons_of_another_network_do_not_change_the_key(tmp_path: Path) -> None:
    run = probing(tmp_path, track={"fc": [9]})
    only = {"conv": StageSpec("responses", 1)}
    spec = exemplars_spec(only, [], run.asked)
    assert spec.key == exemplars_spec(only, [], run.asked.model_copy(update={"track": {}})).key
    assert spec.place["track"] == {"fc": [9]}
