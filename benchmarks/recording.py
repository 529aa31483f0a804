"""Recording: what an archive of every update adds to a training, by CPU time.

    python -m benchmarks.recording [--rounds 5] [--steps 40] [--only NAME] [--kinds dense,hybrid,replay]

Trains two copies of a small network on random data in one process and one torch thread. One is recorded. The copies
make their steps in turn, so that both see the same load of the machine. Prints recorded/unrecorded (median of the
rounds), the archive's size and how long the training waited for the writing thread. CPU time is that of the whole
process, the writing thread's too, up to the last step. The first two steps warm up. Closing an archive of one step
gives the CPU time of a checkpoint, counted at the recorder's own rate. The weights of both must be equal.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.cluster.parallel import keep_freed_memory
from tasks.recording import ARCHIVES, UpdateRecorder
from tasks.recording.start import steps_of_a_segment


@dataclass(frozen=True)
class Case:
    """A network and the shape of its batches."""

    build: Callable[[], nn.Module]
    batch: tuple[int, ...]
    steps: float  # times --steps

    def start(self) -> "Loop":
        """Return a training from its beginning."""
        return Loop(self)


def vgg(width: int) -> nn.Module:
    """Return VGG-16's thirteen convolutions with batch norm at a reduced width, for 32 x 32 images."""
    layers: list[nn.Module] = []
    before = 3
    for size in (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0):
        if not size:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(before, size * width, 3, padding=1), nn.BatchNorm2d(size * width), nn.ReLU()]
        before = size * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, 10))


def mlp(*sizes: int) -> nn.Module:
    """Return a multi-layer perceptron."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


CPU = torch.device("cpu")


@dataclass
class Loop:
    """A training on random data from one seed."""

    case: Case
    device: torch.device = CPU

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = self.case.build().to(self.device)
        single = False if self.device.type == "cpu" else None  # torch's own choice is the fastest on a GPU
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, foreach=single)
        shape = self.case.batch
        self.inputs, self.labels = torch.randn(8, *shape), torch.randint(0, 10, (8, shape[0]))
        self.inputs, self.labels = self.inputs.to(self.device), self.labels.to(self.device)

    def step(self, step: int) -> None:
        """Make an update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.inputs[step % 8]), self.labels[step % 8])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        self.optimizer.step()

    def members(self, step: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the ids of the examples and of the ghosts of a step."""
        return [step], []

    def seconds(self, step: int) -> float:
        """Make an update; return its CPU time without that of other threads."""
        start = time.thread_time()
        self.step(step)
        return time.thread_time() - start

    def weights(self) -> list[Tensor]:
        """Return the present weights and buffers."""
        return list(self.model.state_dict().values())


WARM = 2  # steps before the measured ones

CASES = {
    "vgg-16, width 1/4": Case(lambda: vgg(16), (88, 3, 32, 32), 1),
    "mlp 64-32-10, single examples": Case(lambda: mlp(64, 32, 10), (1, 64), 50),
    "mlp 784-512-512-10": Case(lambda: mlp(784, 512, 512, 10), (128, 784), 3),
    "mlp 784-4096-4096-10": Case(lambda: mlp(784, 4096, 4096, 10), (128, 784), 0.5),
}


def record(case: Case, steps: int, store: Path, kind: str) -> tuple[float, float, float, float]:
    """Train two copies in turn.

    Returns
    -------
    CPU seconds of the unrecorded steps, of the recorded ones, and of the closing; and waited seconds
    """
    plain, recorded = case.start(), case.start()
    alone, together = 0.0, 0.0
    with UpdateRecorder(recorded.model, recorded.optimizer, store, kind=kind, checkpoint_every=steps + 1) as recorder:
        for step in range(steps):
            if step == min(WARM, steps - 1):
                alone, together = 0.0, -time.process_time()
            alone += plain.seconds(step)
            examples, ghosts = recorded.members(step)
            with recorder.step(examples, ghosts=ghosts):
                recorded.step(step)
        end = time.process_time()
    closing = time.process_time() - end
    assert all(torch.equal(a, b) for a, b in zip(plain.weights(), recorded.weights(), strict=True)), kind
    return alone, together + end - alone, closing, recorder.waited_seconds


def compare(name: str, kind: str, case: Case, rounds: int, steps: int) -> None:
    """Print a line for a network and a kind of archive."""
    found, closings, size = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        for _ in range(rounds):
            found.append(record(case, steps + WARM, store, kind))
            size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
            shutil.rmtree(store)
            closings.append(record(case, 1, store, kind)[2])
            shutil.rmtree(store)
    closing = statistics.median(closings)
    every = steps_of_a_segment(case.build(), None, recomputes=ARCHIVES[kind].recomputes)
    ratios = [(recorded + steps / every * closing) / alone for alone, recorded, _, _ in found]
    each, waited = statistics.median(f[0] for f in found) / steps, statistics.median(f[3] for f in found)
    print(
        f"{name}, {kind}: {steps} steps of {each * 1e3:.2f} ms CPU; recorded/unrecorded CPU "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"archive {size / 1e6:.1f} MB ({size / steps / 1e6:.3f} a step); waited {waited:.2f} s; "
        f"a checkpoint {closing * 1e3:.0f} ms",
        flush=True,
    )


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of the largest network; the others make more")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--kinds", default="dense,hybrid,replay", help="kinds of archive, separated by commas")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name, case in CASES.items():
        if asked.only in name:
            for kind in asked.kinds.split(","):
                compare(name, kind, case, asked.rounds, int(asked.steps * case.steps))


if __name__ == "__main__":
    main()
