"""The peak memory that a partition notes."""

import os

import numpy as np
import pytest

from tasks.engine.life import measured, peak_memory_mb, reset_peak_memory


def test_peak_memory_rises_with_an_array() -> None:
    reset_peak_memory()
    before = peak_memory_mb()
    block = np.ones(2**23 + int(before) * 2**17)  # 64 MB more than the process has ever held
    assert peak_memory_mb() - before > 60
    del block
    found = measured(rows=3)
    assert found["rows"] == 3
    assert found["pid"] == os.getpid()
    assert found["peak_mb"] > 10


def test_peak_memory_is_nothing_where_the_kernel_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str, mode: str = "r") -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr("builtins.open", closed)
    reset_peak_memory()
    found = peak_memory_mb()
    monkeypatch.undo()
    assert found == 0.0
