"""Companions: what an adversary, masks of pruned weights, the diversity regulariser and gates add to a training step.

    python -m benchmarks.companions [--rounds 7] [--steps 6] [--only NAME]

Trains small networks on random images in one process and one torch thread, plain and with each companion alone, in
turn. It prints the CPU time of a plain step, and the ratio of a step with each companion to it: the median of the
rounds with their range. Random words and vectors stand for an image-text model: their values do not change the cost.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.recording import vgg
from tasks.cluster.parallel import keep_freed_memory
from tasks.io.networks import build_model
from tasks.training.batches import Positions
from tasks.training.companions import COMPANIONS, Attach
from tasks.training.loop import Samples, Trainer
from tasks.training.lottery import prunable, prune
from tasks.training.samplers.shuffled import ShuffledBatches

PRUNED = 0.4  # share of the weights
BATCHES = 4  # of random images, in turn


@dataclass(frozen=True)
class Case:
    """A network, its batches, and the layer and sizes of the regulariser: words, and length of their vectors."""

    build: Callable[[], nn.Module]
    size: int
    layer: str
    words: int
    vector: int


CASES = {
    "small-cnn, width 16, 32 of 32 x 32, 20 words": Case(
        lambda: build_model("small-cnn", {"channels": 3, "width": 16}, 0), 32, "8", 20, 64
    ),
    "ResNet-20, 128 of 32 x 32, 56 words": Case(lambda: build_model("cifar-resnet20", {}, 0), 128, "layer3", 56, 64),
    "ResNet-20, 128 of 32 x 32, 1,197 words of CLIP's size": Case(
        lambda: build_model("cifar-resnet20", {}, 0), 128, "layer3", 1197, 512
    ),
    "vgg-16, width 1/4, 88 of 32 x 32, 56 words": Case(lambda: vgg(16), 88, "42", 56, 64),
}


def attachments(case: Case, images: Tensor) -> dict[str, Attach]:
    """Return every companion of a case by name, not attached to a model yet."""
    model, generator = case.build().eval(), torch.Generator().manual_seed(1)
    weights = {name: model.get_parameter(name).detach() for name in prunable(model)}
    n = BATCHES * case.size
    words, vectors = (
        nn.functional.normalize(torch.randn(rows, case.vector, generator=generator)) for rows in (case.words, n)
    )
    settings: dict[str, dict[str, object]] = {
        "masks": {"masks": prune(weights, None, PRUNED)},
        "diversity": {
            "layer": case.layer,
            "layout": None,
            "beta": 1.0,
            "temperature": 0.01,
            "words": words,
            "images": vectors,
            "ids": np.arange(n, dtype=np.int64),
        },
        "adversary": {"mean": [0.5], "std": [0.25], "epsilon": 8 / 255, "step": 2 / 255, "steps": 7},
        "gates": {"weight": 0.001, "share": 0.2, "plain_epochs": 0, "period": 1},
    }
    example = torch.randn((1, *images.shape[1:]), generator=generator)
    return {name: COMPANIONS[name](found, model, example, images[:2]) for name, found in settings.items()}


def trainer_of(case: Case, images: Tensor, labels: Tensor, attach: Attach | None) -> Trainer:
    """Return a training with one companion, or without."""
    model = case.build()
    companions = () if attach is None else (attach(model),)
    groups = [{"params": list(model.parameters())}, *(group for each in companions for group in each.groups())]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, foreach=False)

    def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
        return images[torch.from_numpy(positions)], labels[torch.from_numpy(positions)]

    ids = np.arange(len(images), dtype=np.int64)
    return Trainer(
        model, optimizer, Samples(fetch, ShuffledBatches(labels.numpy(), 0, case.size), ids), companions=companions
    )


def compare(name: str, case: Case, rounds: int, steps: int) -> None:
    """Print the cost of a plain step of a case, and the ratios of steps with each companion."""
    generator = torch.Generator().manual_seed(0)
    n = BATCHES * case.size
    images = (torch.rand((n, 3, 32, 32), generator=generator) - 0.5) / 0.25
    labels = torch.randint(0, 10, (n,), generator=generator)
    attached: dict[str, Attach | None] = {"plain": None, **attachments(case, images)}
    trainers = {key: trainer_of(case, images, labels, attach) for key, attach in attached.items()}
    spent: dict[str, list[float]] = {key: [] for key in trainers}
    for number in range(rounds + 1):
        for key, trainer in trainers.items():
            before = time.process_time()
            trainer.run(number * steps, (number + 1) * steps)
            if number:  # the first round warms up
                spent[key].append((time.process_time() - before) / steps)
    print(f"{name}: a plain step takes {1e3 * statistics.median(spent['plain']):.1f} ms of CPU")
    for key in list(spent)[1:]:
        ratios = [own / plain for own, plain in zip(spent[key], spent["plain"], strict=True)]
        print(f"  {key}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="steps of a round")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name, case in CASES.items():
        if asked.only in name:
            compare(name, case, asked.rounds, asked.steps)


if __name__ == "__main__":
    main()
