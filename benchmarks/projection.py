"""Projection of weight updates on queries, against one convolution per step.

Run `python -m benchmarks.projection`; one thread, CPU times of all sides taken in turn in one run, figures measured by
the run itself. The authors' way convolves the queries with each update and takes norm and inner product of the result.
Scores of examples, next to those of other libraries, are in `benchmarks.peers`.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import os
import time
from collections.abc import Callable

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on all sides

import numpy as np
import torch
from torch import Tensor, nn

from tasks.tracing import Projector

# (channels in, channels out, side of the map) of layers of VGG-16 on CIFAR-10
LAYERS = ((3, 64, 32), (64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4), (512, 512, 2))


@torch.no_grad()
def one_convolution_per_step(conv: nn.Conv2d, inputs: Tensor, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Return gamma and norm (Q, T) the authors' way."""
    z = nn.functional.conv2d(inputs, conv.weight, padding=1).flatten(1)
    norms, gamma = [], []
    for update in updates:
        moved = nn.functional.conv2d(inputs, update, padding=1).flatten(1)
        norms.append(moved.norm(dim=1))
        gamma.append((z * moved).sum(dim=1))
    return torch.stack(gamma, dim=1), torch.stack(norms, dim=1)


def compare_layer(shape: tuple[int, int, int], n_queries: int, n_steps: int, rounds: int) -> None:
    """Print CPU time per step of the authors' way, of gamma with norms, and of gamma alone."""
    n_in, n_out, side = shape
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
    inputs = torch.randn(n_queries, n_in, side, side, generator=generator).relu()
    updates = torch.randn(n_steps, *conv.weight.shape, generator=generator)
    full = Projector(conv, conv.weight, inputs)
    sides: dict[str, Callable[[], object]] = {
        "authors": lambda: one_convolution_per_step(conv, inputs, updates),
        "prepare": lambda: Projector(conv, conv.weight, inputs),
        "both": lambda: full.contributions(updates),
        "gamma": lambda: lean.gammas(updates),
    }
    lean = Projector(conv, conv.weight, inputs, norms=False)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for name in list(sides) * (rounds + 1):
        taken[name].append(cpu_seconds(sides[name]))
    seconds = {name: float(np.median(times[1:])) for name, times in taken.items()}  # the first round warms up
    gamma, norm = one_convolution_per_step(conv, inputs, updates)
    found = full.contributions(updates)
    scale = found.preactivation_norm[:, None] * found.norm
    gap = max(float(((found.gamma - gamma).abs() / scale).max()), float(((found.norm - norm).abs() / norm).max()))
    step = {name: 1e3 * value / n_steps for name, value in seconds.items()}
    print(
        f"  {n_in:3d} -> {n_out:3d}, {side:2d} x {side:2d} ({full.strategy:>11}): "
        f"authors {step['authors']:8.3f} ms a step; "
        f"gamma, norm {step['both']:8.3f} ({step['both'] / step['authors']:.3f} x); "
        f"gamma alone {step['gamma']:8.3f} ({step['gamma'] / step['authors']:.3f} x); "
        f"once per queries {1e3 * seconds['prepare']:7.1f} ms; largest difference {gap:.0e}"
    )


def cpu_seconds(measured: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    measured()
    return time.process_time() - start


def main() -> None:
    """Compare the layers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"3 x 3, {chosen.queries} queries, {chosen.steps} steps, median of {chosen.rounds} rounds, one thread")
    for shape in LAYERS:
        compare_layer(shape, chosen.queries, chosen.steps, chosen.rounds)


if __name__ == "__main__":
    main()
