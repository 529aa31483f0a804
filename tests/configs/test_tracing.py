"""The config's section `tracing` and label noise: what is left out, and what goes with what."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema import Config, LabelNoise
from configs.tracing import Tracing
from configs.training import Record

Tree = dict[str, Any]  # Any: YAML


def config(**changes: object) -> Config:
    """Return a config that asks question 4, with other sections."""
    train = {"data": "digits", "epochs": 1, "optimizer": {"lr": 0.1}, "record": {}}
    tree: Tree = {
        "name": "small",
        "data": {"digits": {"source": "sklearn-digits"}},
        "networks": {"net": {"model": "mlp", "train": train}},
        "tracing": {"networks": ["net"]},
    }
    return Config.model_validate({**tree, **changes})


def test_what_a_tracing_leaves_out_is_the_papers() -> None:
    asked = Tracing(networks=("net",))
    assert (asked.layers, asked.anchor, asked.bias, asked.window) == ("all", "final", False, None)
    assert (asked.queries.data, asked.queries.split, asked.queries.count) == (None, "val", 8)
    assert (asked.ridges.kind, asked.ridges.bandwidth, asked.ridges.classes) == ("absolute", 0.1, 10)
    assert asked.scores == ("gamma", "logit")
    assert (asked.evaluation.mislabel, asked.evaluation.randomisation, asked.evaluation.lds) == (False, False, None)


@pytest.mark.parametrize("window", [(0, 1), (5, 30)])
def test_a_window_has_a_step(window: tuple[int, int]) -> None:
    assert Tracing(networks=("net",), window=window).window == window


@pytest.mark.parametrize("window", [(1, 1), (30, 5)])
def test_a_window_without_a_step_is_refused(window: tuple[int, int]) -> None:
    first, end = window
    with pytest.raises(ValidationError, match=f"window: expected a first step before the end {end}, found {first}"):
        Tracing(networks=("net",), window=window)


def test_noise_is_a_share_of_the_training_split() -> None:
    noise = LabelNoise(share=0.1)
    assert (noise.kind, noise.splits, noise.seed) == ("flip", ("train",), 0)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        LabelNoise(share=1.1)


@pytest.mark.parametrize("images", ["ids", "none"])
def test_queries_are_not_trained_on_where_training_images_are_private(images: str) -> None:
    private = {"training_images": images}
    assert config(report=private).tracing is not None
    shown = {"networks": ["net"], "queries": {"split": "train"}}
    assert config(tracing=shown).tracing is not None
    with pytest.raises(
        ValidationError, match=f"with '{images}' expected queries from a split without training, found 'train'"
    ):
        config(tracing=shown, report=private)


def test_queries_come_from_data_of_the_config() -> None:
    with pytest.raises(ValidationError, match=r"tracing\.queries\.data: expected one of digits, found 'letters'"):
        config(tracing={"networks": ["net"], "queries": {"data": "letters"}})
    with pytest.raises(ValidationError, match=r"tracing\.networks: expected one of net, found 'other'"):
        config(tracing={"networks": ["other"]})


@pytest.mark.parametrize(
    ("steps", "fits"),
    [
        ([[0, 5]], True),
        ([[0, 5], [5, 9]], True),  # they touch
        ([[2, 3], [7, 9], [20, 30]], True),
        ([[4, 4]], False),
        ([[0, 5], [4, 9]], False),
        ([[7, 9], [0, 5]], False),
        ([[0, 2], [5, 9], [3, 4]], False),
    ],
)
def test_ranges_of_recorded_steps_rise_and_do_not_overlap(steps: list[list[int]], fits: bool) -> None:
    if fits:
        assert Record.model_validate({"steps": steps}).steps == tuple(tuple(span) for span in steps)
    else:
        with pytest.raises(ValidationError, match=r"ranges .* in rising order"):
            Record.model_validate({"steps": steps})
