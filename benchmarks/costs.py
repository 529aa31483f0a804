"""Costs that were found high beside other tools, in one table: CPU time of both sides in turn, and their ratio.

    python -m benchmarks.costs [--rounds 3]

One thread; least of the rounds after one that warms up. The decomposed head has a benchmark of its own.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on both sides

import numpy as np
import torch
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from torch.nn import functional as F

from benchmarks.nmf import mixed_maps
from benchmarks.recording import mlp
from tasks.coresets import SELECTORS
from tasks.interpreters.ice import nmf_codes
from tasks.tracing import RidgeHistogram, ridge_densities
from tasks.training.loop import Samples, Trainer
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers import SAMPLERS

STEPS, SIZE, SAMPLES = 1_000, 32, 1_500
Case = tuple[str, Callable[[], object], Callable[[], object]]


def trainings() -> Case:
    """Return the training loop, and a bare loop of torch."""
    inputs, labels = torch.randn(SAMPLES, 64), torch.randint(0, 10, (SAMPLES,))
    batches = SAMPLERS["shuffled"](labels.numpy(), 0, size=SIZE)

    def ours() -> None:
        model = mlp(64, 32, 10)
        optimizer = OPTIMIZERS["sgd"](model.parameters(), lr=0.05, momentum=0.9)
        samples = Samples(lambda rows: (inputs[torch.from_numpy(rows)], labels[rows]), batches, np.arange(SAMPLES))
        Trainer(model, optimizer, samples).run(0, STEPS)

    def bare() -> None:
        model = mlp(64, 32, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, foreach=False)
        for _ in range(STEPS):
            rows = torch.randint(0, SAMPLES, (SIZE,))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
            loss.item()

    return f"training, {STEPS} steps of an MLP, against a bare loop", ours, bare


def codes(n: int, d: int, rank: int) -> Case:
    """Return exact codes, and scikit-learn's transform."""
    maps = mixed_maps(n, d)
    fitted = NMF(rank, random_state=0, max_iter=60).fit(maps)
    name = f"codes, {n} x {d}, rank {rank}, against scikit-learn"
    return name, lambda: nmf_codes(maps, fitted.components_), lambda: fitted.transform(maps)


def moderate() -> Case:
    """Return a selection of 20,000 rows, and four of 5,000."""
    rows = np.random.default_rng(0).random((20_000, 64)).astype(np.float32)
    select = SELECTORS["moderate"]
    few = rows[:5_000]
    return (
        "moderate, 20,000 rows, against 4 x 5,000",
        lambda: select(rows, 0.5),
        lambda: [select(few, 0.5) for _ in range(4)],
    )


def ridges() -> Case:
    """Return the densities of a histogram, and the exact ones of each query."""
    rng, grid = np.random.default_rng(0), np.linspace(-1.25, 1.25, 201)
    cosine, weight, classes = rng.uniform(-1, 1, (20, 3_000)), rng.random((20, 3_000)), rng.integers(0, 10, 3_000)

    def ours() -> None:
        histogram = RidgeHistogram(20, 10)
        histogram.update(cosine, weight, classes)
        histogram.densities(grid)

    exact = lambda: [ridge_densities(c, w, classes, grid) for c, w in zip(cosine, weight, strict=True)]  # noqa: E731
    return "ridges, 20 queries, 3,000 steps, against exact sums", ours, exact


def cases() -> Iterator[Case]:
    """Yield what is compared."""
    yield trainings()
    yield codes(8_000, 128, 25)
    yield codes(8_000, 64, 25)
    yield codes(2_000, 64, 25)
    yield moderate()
    yield ridges()


def main() -> None:
    """Print a row per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name, *sides in cases():
        taken = np.empty((chosen.rounds + 1, 2))
        for row in taken:
            for side, work in enumerate(sides):
                start = time.process_time()
                work()
                row[side] = time.process_time() - start
        ours, theirs = 1e3 * taken[1:].min(axis=0)
        print(f"  {name}: {ours:.1f} ms / {theirs:.1f} ms = {ours / theirs:.2f}", flush=True)


if __name__ == "__main__":
    main()
