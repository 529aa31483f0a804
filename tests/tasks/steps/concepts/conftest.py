"""Small partitions, so that a tiny probing set has several."""

import pytest

from tasks.steps.concepts import layer_maps, responses


@pytest.fixture(autouse=True)
def _small_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MAX_ROWS", 32)
    monkeypatch.setattr(layer_maps, "RANGE_IMAGES", 32)
    monkeypatch.setattr(layer_maps, "CHUNK_IMAGES", 10)
