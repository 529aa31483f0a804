"""The selector dgpruning against a plain implementation: CPU time and order, on one class of ImageNet's size.

Run `python -m benchmarks.dgpruning`; the plain form takes all distances from SciPy and sorts each row of them.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import os
import time

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on both sides

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tasks.coresets import SELECTORS


def plain(features: NDArray[np.float64], size: int, k: int = 5, *, product: bool = False) -> NDArray[np.int64]:
    """Return the order of choice, as the method is described; distances from SciPy, or from one matrix product."""
    score = np.linalg.norm(features - features.mean(axis=0), axis=1)
    if product:
        square = (features**2).sum(axis=1)
        distance = np.sqrt(np.maximum(square[:, None] + square - 2 * features @ features.T, 0))
    else:
        distance = cdist(features, features)
    np.fill_diagonal(distance, np.inf)
    linked = np.zeros(distance.shape, dtype=bool)
    np.put_along_axis(linked, np.argsort(distance, axis=1, kind="stable")[:, :k], True, axis=1)
    linked |= linked.T
    density = score.copy()
    for i in range(len(features)):
        near = np.flatnonzero(linked[i])
        density[i] += (np.exp(-distance[i, near]) * np.maximum(score[near], 1e-7)).sum()
    order = []
    for _ in range(size):
        i = int(np.argmax(density))
        order.append(i)
        near = np.flatnonzero(linked[i])
        density[near] -= np.exp(-0.1 * distance[i, near]) * density[i]
        density[i] = -np.inf
    return np.array(order)


def main() -> None:
    """Print the least CPU time of each form in turn, and whether all orders are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_300)
    parser.add_argument("--channels", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (chosen.rows, chosen.channels)
    features = np.maximum(rng.standard_normal(shape) * 0.3 + rng.random(chosen.channels), 0) * 0.1
    for rho in (0.1, 1.0):
        size = max(1, round(rho * chosen.rows))
        times = np.empty((chosen.rounds, 3))
        for turn in times:
            begun = time.process_time()
            ours = SELECTORS["dgpruning"](features, rho).order
            middle = time.process_time()
            first = plain(features, size)
            second = time.process_time()
            last = plain(features, size, product=True)
            turn[:] = middle - begun, second - middle, time.process_time() - second
            np.testing.assert_array_equal(ours, first)
            np.testing.assert_array_equal(ours, last)
        mine, other, gram = times.min(axis=0)
        print(
            f"  {shape[0]} x {shape[1]}, rho {rho:g}: CPU {mine:.3f} s; SciPy's distances {other:.3f} s"
            f" = {other / mine:.1f} times; one product {gram:.3f} s = {gram / mine:.1f} times; orders equal"
        )


if __name__ == "__main__":
    main()
