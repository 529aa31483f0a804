"""The maps of a layer: stored and made again are the same bytes, and a plain loop's values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from storage.specs import StageSpec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts.grids import spatial_size
from tasks.steps.concepts.layer_maps import (
    check_maps,
    image_range,
    layer_maps,
    n_ranges,
    planned_ranges,
    read_sizes,
)
from tests.tasks.steps.concepts.probing import LAYERS, Probing, probing


def all_maps(run: Probing, responses: StageSpec, layer: str) -> np.ndarray:
    """Return the maps of all ranges."""
    store, chunks, at = run.job.store, [], 0
    for number in range(n_ranges(store, responses)):
        span = image_range(store, responses, number)
        for start, maps in layer_maps(store, responses, layer, span, torch.device("cpu")):
            assert start == at
            assert maps.dtype == np.float16
            chunks.append(maps)
            at += len(maps)
    return np.concatenate(chunks)


def test_stored_maps_and_a_second_pass_are_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    stored, again = probing(tmp_path / "one"), probing(tmp_path / "two", kept=False)
    assert n_ranges(stored.job.store, stored.responses["conv"]) == 3
    assert planned_ranges(stored.responses["conv"], PlanSurvey(None)) == 3
    for layer in LAYERS:
        maps = all_maps(stored, stored.responses[layer], layer)
        assert maps.tobytes() == all_maps(again, again.responses[layer], layer).tobytes()
        np.testing.assert_allclose(maps.astype(np.float64), stored.maps(layer), rtol=2e-3, atol=2e-3)


def test_tokens_are_a_square_without_the_class_token(tmp_path: Path) -> None:
    run = probing(tmp_path, layers=("tokens", "odd"), kept=False)
    survey = PlanSurvey(None)
    assert check_maps(run.responses["tokens"], "tokens", survey, "a.key") == (6, 8, 8)
    with pytest.raises(ValueError, match=r"a\.key: networks\.small: layer 'odd': expected tokens .*, found 7 tokens"):
        check_maps(run.responses["odd"], "odd", survey, "a.key")


@pytest.mark.parametrize(
    ("positions", "size"),
    [((8, 5), (8, 5)), ((1, 65), (8, 8)), ((1, 64), (8, 8)), ((1, 1), (1, 1)), ((4, 1), (4, 1)), ((1, 2), (1, 1))],
)
def test_positions_form_a_map(positions: tuple[int, int], size: tuple[int, int]) -> None:
    assert spatial_size(*positions) == size


def test_sizes_of_a_finished_stage(tmp_path: Path) -> None:
    run = probing(tmp_path)
    from storage.stages import open_finished

    finished = {layer: open_finished(run.job.store, run.responses[layer]) for layer in LAYERS}
    assert {layer: read_sizes(finished[layer], layer) for layer in LAYERS} == {
        "conv": (6, 8, 8),
        "tokens": (6, 8, 8),
        "fc": (5, 1, 1),
    }
