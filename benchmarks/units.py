"""VEBI at the size of ResNet-50, by simulation: panels of the Gram matrix, sums that grow with the budget, a path.

Run `python -m benchmarks.units`. Responses are random energies of 49 layers, as many samples as `--samples` says. Of a
run's units / rows panels the first, the middle and the last are measured: the slope is nanoseconds a product.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import os
import time
import tracemalloc
from collections.abc import Iterator

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded

import numpy as np
from numpy.typing import NDArray

from tasks.interpreters.mu_path import mu_path
from tasks.interpreters.panels import BLOCK, panel_sums
from tasks.steps.interpretation.unit_gram import CHUNK_BYTES, unit_gram_layout

LAYERS, CLASSES = 49, 1000
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
Chunks = list[tuple[NDArray[np.float32], NDArray[np.int64]]]


def chunks(units: int, samples: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield energies (b, M) that sum to 1 in each layer, and predicted classes (b,)."""
    rng, size = np.random.default_rng(0), max(1, CHUNK_BYTES // (8 * units))
    bounds = np.linspace(0, units, LAYERS + 1).astype(int)[:-1]
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        energy = rng.random((rows, units), dtype=np.float32) ** 8
        energy /= np.repeat(np.add.reduceat(energy, bounds, axis=1), np.diff([*bounds, units]), axis=1)
        yield energy, rng.integers(0, CLASSES, rows)


def panel_row(units: int, samples: int) -> None:
    """Print the cost of three panels, and of all panels by their slope."""
    layout = unit_gram_layout(units, CLASSES)
    rows, last = layout.arrays["gram"].rows, layout.partitions - 1
    given = list(chunks(units, samples))
    seconds, products = 0.0, 0
    for number in (0, last // 2, last):
        start, stop = layout.arrays["gram"].span(number)
        begun = time.process_time()
        panel_sums(given, slice(start, stop), units, CLASSES)
        spent = time.process_time() - begun
        held = _peak(given[:2], slice(start, stop), units)
        made = (stop - start) * (units - start) * samples
        seconds, products = seconds + spent, products + made
        print(f"    panel {number}: {stop - start} rows, {spent:.2f} s CPU, {held / 1e6:.0f} MB")
    slope = seconds / products
    every = sum(
        (stop - start) * (units - start) for start, stop in map(layout.arrays["gram"].span, range(layout.partitions))
    )
    print(
        f"  {units} units, {samples} samples: {layout.partitions} panels of {rows} rows,"
        f" {1e9 * slope:.3f} ns a product: {slope * every * 1e3:.1f} s for 1,000 samples"
        f" ({every / units**2:.2f} of all products); matrix {8 * units**2 / 1e9:.2f} GB"
    )


def _peak(given: Chunks, panel: slice, units: int) -> int:
    """Return the peak memory of the sums and of a chunk in float64, whatever the number of samples."""
    tracemalloc.start()
    panel_sums(given, panel, units, CLASSES)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def shells_row(units: int, samples: int) -> None:
    """Print the cost of the sums of five budgets: each of all pairs, each with every pair once, and grown."""
    x = np.concatenate([energy for energy, _ in chunks(units, samples)])
    labels = np.arange(samples) % CLASSES
    ends = [round(budget * samples) for budget in BUDGETS]
    begun = time.process_time()
    for end in ends:
        wide = x[:end].astype(np.float64)
        direct = np.concatenate([wide[:, low : low + BLOCK].T.copy() @ wide for low in range(0, units, BLOCK)])
    plain = time.process_time()
    for end in ends:
        half, _ = panel_sums([(x[:end], labels[:end])], slice(0, units), units, CLASSES)
    once = time.process_time()
    grown = np.zeros((units, units))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        grown += panel_sums([(x[start:end], labels[start:end])], slice(0, units), units, CLASSES)[0]
    shells = time.process_time()
    error = float(np.abs(grown - direct).max() / np.abs(direct).max())
    assert np.abs(half - direct).max() <= 1e-12 * np.abs(direct).max()
    print(
        f"  {units} units, {samples} samples, budgets {', '.join(f'{100 * b:g} %' for b in BUDGETS)}:"
        f" all pairs {plain - begun:.2f} s, each pair once {once - plain:.2f} s, grown {shells - once:.2f} s CPU"
        f" ({(plain - begun) / (shells - once):.1f} times less); largest difference {error:.0e} of the largest sum"
    )


def path_row(units: int, samples: int) -> None:
    """Print the cost of a class's path to mu 10, and of a further mu."""
    rng = np.random.default_rng(1)
    x = np.concatenate([energy for energy, _ in chunks(units, samples)]).astype(np.float64)
    label = (rng.random(samples) < 0.1).astype(np.float64)
    x[:, :40] += 0.02 * label[:, None] * rng.random((samples, 40))
    begun = time.process_time()
    gram, product = x.T @ x, x.T @ label
    formed = time.process_time()
    path = mu_path(gram, product, until=10.0)
    found = time.process_time()
    path.at(min(3.0, float(path.mu[-1])))
    further = time.process_time() - found
    print(
        f"  {units} units: Gram {formed - begun:.2f} s, path to mu 10 {found - formed:.2f} s,"
        f" {len(path.mu)} breakpoints; a further mu {1e6 * further:.0f} us ="
        f" 1 / {(found - begun) / further:.0f} of a solve from the data"
    )


def main() -> None:
    """Print panels at a quarter, a half and all of ResNet-50's units, sums of five budgets, and a path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=600)
    chosen = parser.parse_args()
    for units in (5_680, 11_360, 22_720):
        panel_row(units, chosen.samples)
    shells_row(2_840, 10 * chosen.samples)
    path_row(2_840, chosen.samples)


if __name__ == "__main__":
    main()
