"""Trainings of a decomposed head or network that were killed, or run out of memory, end with the same bits."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tasks.cluster.parallel import PartitionError
from tasks.steps.decomposition import decomposed_training
from tests.tasks.steps.common.trainings import die_at, file_digests
from tests.tasks.steps.decomposition.retrainings import train

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.mark.parametrize("scope", ["head", "network"])
@pytest.mark.parametrize("calls", [(1, 2), (4,), (6, 7)])
def test_a_killed_retraining_gives_the_same_bits(
    run_of: Callable[..., "Run"], monkeypatch: pytest.MonkeyPatch, scope: str, calls: tuple[int, ...]
) -> None:
    whole = train(run_of(scope, "whole"))
    with monkeypatch.context() as patch:
        die_at(patch, *calls)
        for _ in calls:
            with pytest.raises(PartitionError, match="killed"):
                train(run_of(scope))
    files = train(run_of(scope))
    assert file_digests(files.parent) == file_digests(whole.parent)
    assert len(list(files.glob("checkpoint-*"))) > 2


def test_features_that_do_not_fit_in_memory_give_the_same_bits(
    run_of: Callable[..., "Run"], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(run_of("head", "whole"))
    monkeypatch.setattr(decomposed_training, "MEMORY_SAMPLES", 0)
    files = train(run_of("head"))
    assert (files / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
