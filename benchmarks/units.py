"""VEBI at the size of ResNet-50, by simulation: time and memory of a panel of the Gram matrix, and of a class's path.

Run `python -m benchmarks.units`. Responses are random energies of 49 layers, as many samples as `--samples` says. A run
has units / rows panels; the table shows one panel and the product.
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
from tasks.interpreters.panels import panel_sums
from tasks.steps.interpretation.unit_gram import CHUNK_BYTES, unit_gram_layout

LAYERS, CLASSES = 49, 1000


def chunks(units: int, samples: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Yield energies (b, M) that sum to 1 in each layer, and predicted classes (b, C)."""
    rng, size = np.random.default_rng(0), max(1, CHUNK_BYTES // (8 * units))
    bounds = np.linspace(0, units, LAYERS + 1).astype(int)[:-1]
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        energy = rng.random((rows, units), dtype=np.float32) ** 8
        energy /= np.repeat(np.add.reduceat(energy, bounds, axis=1), np.diff([*bounds, units]), axis=1)
        yield energy, np.eye(CLASSES)[rng.integers(0, CLASSES, rows)]


def panel_row(units: int, samples: int) -> None:
    """Print the cost of one panel and of all panels."""
    layout = unit_gram_layout(units, CLASSES)
    rows = layout.arrays["gram"].rows
    given = list(chunks(units, samples))
    begun = time.process_time()
    panel_sums(given, slice(0, rows), units, CLASSES)
    spent = time.process_time() - begun
    tracemalloc.start()
    panel_sums(given[:2], slice(0, rows), units, CLASSES)
    held = tracemalloc.get_traced_memory()[1]  # the peak of the sums and of a chunk in float64, whatever the samples
    tracemalloc.stop()
    print(
        f"  {units} units, {samples} samples: panel of {rows} rows {spent:.2f} s CPU, {held / 1e6:.0f} MB;"
        f" {layout.partitions} panels {spent * layout.partitions:.0f} s; matrix {8 * units**2 / 1e9:.2f} GB;"
        f" {1e9 * spent / (rows * units * samples):.3f} ns a product"
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
    """Print panels at a quarter, a half and all of ResNet-50's units, and a path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=600)
    chosen = parser.parse_args()
    for units in (5_680, 11_360, 22_720):
        panel_row(units, chosen.samples)
    path_row(2_840, chosen.samples)


if __name__ == "__main__":
    main()
