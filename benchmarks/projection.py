"""Projection of weight updates on queries: against one convolution per step, and against captum's TracInCPFast.

Run `python -m benchmarks.projection`; one thread, CPU times of all sides taken in turn in one run, figures measured by
the run itself. The authors' way convolves the queries with each update and takes norm and inner product of the result.
Captum (if it can be imported) scores all training examples for the same queries from the same checkpoints of a small
network; the two measure different things, so class agreement @1 is printed with the times.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import importlib
import os
import time
import warnings
from collections.abc import Callable
from types import ModuleType

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on all sides

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tasks.tracing import Projector, gammas, influential_examples
from tasks.tracing.evaluation import class_agreement

# (channels in, channels out, side of the map) of layers of VGG-16 on CIFAR-10
LAYERS = ((3, 64, 32), (64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4), (512, 512, 2))
RATE = 0.05


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


def train(images: Tensor, labels: Tensor) -> tuple[nn.Sequential, list[dict[str, Tensor]]]:
    """Train 64-32-10 without bias by single examples; return the network and a checkpoint around each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    checkpoints = [{name: value.clone() for name, value in model.state_dict().items()}]
    for image, label in zip(images, labels, strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(image[None]), label[None]).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        checkpoints.append({name: value.clone() for name, value in model.state_dict().items()})
    return model, checkpoints


def by_contributions(model: nn.Sequential, checkpoints: list[dict[str, Tensor]], queries: Tensor) -> np.ndarray:
    """Return the most influential training example of each query at the output layer, from the checkpoints."""
    weights = torch.stack([checkpoint["2.weight"] for checkpoint in checkpoints])
    model.load_state_dict(checkpoints[-1])
    with torch.no_grad():
        hidden = model[:2](queries)
    gamma = gammas(model[2], weights[-1], hidden, weights.diff(dim=0))
    members = [np.array([step]) for step in range(len(weights) - 1)]
    return influential_examples(gamma.numpy(), members, 1).ids


def by_captum(
    influence: ModuleType,
    model: nn.Sequential,
    checkpoints: list[dict[str, Tensor]],
    train_set: torch.utils.data.TensorDataset,
    queries: tuple[Tensor, Tensor],
) -> np.ndarray:
    """Return the training example of highest TracInCPFast score of each query, over all checkpoints before a step."""

    def load(target: nn.Module, number: str) -> float:
        target.load_state_dict(checkpoints[int(number)])
        return RATE

    names = [str(number) for number in range(len(checkpoints) - 1)]
    loss = nn.CrossEntropyLoss(reduction="sum")
    scorer = influence.TracInCPFast(model, model[2], train_set, names, load, loss, batch_size=len(train_set))
    scores: Tensor = scorer.influence(queries)
    return scores.argmax(dim=1, keepdim=True).numpy()


def compare_captum(n_train: int, n_queries: int, rounds: int) -> None:
    """Print CPU time and class agreement @1 of both, from a checkpoint per step."""
    try:
        influence = importlib.import_module("captum.influence")
    except ImportError:
        print("  captum is absent: no comparison (pip install captum)")
        return
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))[: n_train + n_queries]
    images = torch.from_numpy(digits.data[order] / 16).float()
    labels = torch.from_numpy(digits.target[order]).long()
    model, checkpoints = train(images[:n_train], labels[:n_train])
    queries, train_set = images[n_train:], torch.utils.data.TensorDataset(images[:n_train], labels[:n_train])
    predicted = model(queries).argmax(dim=1)
    sides: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: by_contributions(model, checkpoints, queries),
        "captum": lambda: by_captum(influence, model, checkpoints, train_set, (queries, labels[n_train:])),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for name in list(sides) * (rounds + 1):
        taken[name].append(cpu_seconds(sides[name]))
    seconds = {name: float(np.median(times[1:])) for name, times in taken.items()}
    agree = {name: class_agreement(labels[side()].numpy(), predicted.numpy()) for name, side in sides.items()}
    print(
        f"  {n_train} training examples and checkpoints, {n_queries} queries: ours {seconds['ours']:.3f} s, "
        f"captum {seconds['captum']:.3f} s, ratio {seconds['ours'] / seconds['captum']:.4f}; "
        f"class agreement @1 {agree['ours']:.2f} and {agree['captum']:.2f}"
    )


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--examples", type=int, default=300, help="training examples of the comparison with captum")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="captum")
    print(f"3 x 3, {chosen.queries} queries, {chosen.steps} steps, median of {chosen.rounds} rounds, one thread")
    for shape in LAYERS:
        compare_layer(shape, chosen.queries, chosen.steps, chosen.rounds)
    print("output layer of 64-32-10 on digits, single-example SGD, against captum's TracInCPFast")
    compare_captum(chosen.examples, 100, chosen.rounds)


if __name__ == "__main__":
    main()
