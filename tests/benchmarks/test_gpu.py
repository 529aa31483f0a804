"""The script for GPUs, at small sizes on any device."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.gpu import SMALL, Bench, Row, counterfactuals, matrices, recordings, rows_of, tallies

BENCH = Bench(torch.device("cpu"), SMALL)


def lacking(bench: Bench) -> Iterator[Row]:
    yield from imported("zarr")


def imported(name: str) -> list[Row]:
    raise ImportError(f"No module named {name!r}")


def full(bench: Bench) -> Iterator[Row]:
    yield Row("full", "first", "1")
    raise torch.OutOfMemoryError("CUDA out of memory.\nmore")


def test_numbers_of_one_device_are_equal() -> None:
    rows = [*rows_of(BENCH, [matrices, tallies, counterfactuals], 10)]
    assert len(rows) == 7
    assert all(row.found.endswith("largest difference 0.0e+00") for row in rows), rows


@pytest.mark.slow
def test_every_kind_of_archive_is_recorded_and_explained() -> None:
    parts = [row.part for row in rows_of(BENCH, [recordings], 10)]
    assert parts == ["training", *["recording", "explaining", "explaining"] * 3]


def test_a_part_that_cannot_run_is_a_row() -> None:
    rows = [*rows_of(BENCH, [lacking, full], 10)]
    assert rows == [
        Row("lacking", "", "not run: No module named 'zarr'"),
        Row("full", "first", "1"),
        Row("full", "", "not run: CUDA out of memory."),
    ]


def test_parts_after_the_time_are_left_out() -> None:
    assert [*rows_of(BENCH, [full], -1)] == [Row("full", "", "not run: -1 minutes are over")]
