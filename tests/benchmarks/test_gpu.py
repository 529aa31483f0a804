"""The script for GPUs, at small sizes on any device."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.gpu import SMALL, Bench, Row, both, counterfactuals, matrices, recordings, rows_of, tallies

BENCH = Bench(torch.device("cpu"), SMALL)


def lacking(bench: Bench) -> Iterator[Row]:
    yield from imported("zarr")


def imported(name: str) -> list[Row]:
    raise ImportError(f"No module named {name!r}")


def full(bench: Bench) -> Iterator[Row]:
    yield Row("full", "first", "1")
    raise torch.OutOfMemoryError("CUDA out of memory.\nmore")


def test_each_computation_is_a_row() -> None:
    cases = [row.case for row in rows_of(BENCH, [matrices, tallies, counterfactuals], 10)]
    assert cases[:2] == ["NMF, r = 10", "mu-lasso, 512 units"]
    assert cases[2:5] == ["cos, 128 neurons", "cos_cubed, 128 neurons", "soft_wpmi, 128 neurons"]
    assert cases[5:] == ["Network Dissection", "counterfactual, 40 steps"]


def test_the_largest_difference_is_relative_to_the_largest_number() -> None:
    """The last two calls are the compared ones: 8 on the CPU, 10 on the device."""
    results = iter([1.0, 1.0, 1.0, 1.0, 8.0, 10.0])
    row = both(BENCH, "counted", torch.zeros(1), lambda _: next(results))
    assert row.found.endswith("largest difference 2.5e-01")


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
