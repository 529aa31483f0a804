"""Trainings of a decomposed head or network that were killed, or lack memory, end with the same bits."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from storage.documents import digest
from tasks.parallel import PartitionError
from tasks.steps import trainer
from tasks.steps.decomposition import decomposed_training
from tasks.training.loop import train_steps
from tests.tasks.steps.decomposition.retrainings import train

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.mark.parametrize("scope", ["head", "network"])
@pytest.mark.parametrize("calls", [(1, 2), (4,), (6, 7)])
def test_a_killed_retraining_gives_the_same_bits(
    run_of: Callable[..., "Run"], monkeypatch: pytest.MonkeyPatch, scope: str, calls: tuple[int, ...]
) -> None:
    whole = train(run_of(scope, "whole"))
    original, done = train_steps, 0

    def dies(*arguments: Any, **options: Any) -> list[float]:  # Any: passed on
        nonlocal done
        done += 1
        losses = original(*arguments, **options)
        if done in calls:
            raise RuntimeError("killed")
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_steps", dies)
        for _ in calls:
            with pytest.raises(PartitionError, match="killed"):
                train(run_of(scope))
    files = train(run_of(scope))
    assert {f.name: digest(f.read_bytes()) for f in files.iterdir()} == {
        f.name: digest(f.read_bytes()) for f in whole.iterdir()
    }
    assert len(list(files.glob("checkpoint-*"))) > 2


def test_features_that_do_not_fit_in_memory_give_the_same_bits(
    run_of: Callable[..., "Run"], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(run_of("head", "whole"))
    monkeypatch.setattr(decomposed_training, "MEMORY_SAMPLES", 0)
    files = train(run_of("head"))
    assert (files / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
