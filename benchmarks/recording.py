"""Recording: what an archive of every update adds to a training, by CPU time and by wall time.

    python -m benchmarks.recording [--rounds 5] [--steps 40] [--only NAME] [--kinds dense,hybrid,replay]

Trains small networks on random data in one process and one torch thread, unrecorded and recorded in turn, and
prints recorded/unrecorded (median of the rounds), the archive's size and how long the training waited for the
writing thread. A short training has more checkpoints by step than a long one: their CPU time is measured alone, and
counted at the recorder's own rate. CPU time is that of the whole process, the writing thread's too. The weights of
both must be equal.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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


CASES = {
    "vgg-16, width 1/4": Case(lambda: vgg(16), (88, 3, 32, 32), 1),
    "mlp 64-32-10, single examples": Case(lambda: mlp(64, 32, 10), (1, 64), 50),
    "mlp 784-512-512-10": Case(lambda: mlp(784, 512, 512, 10), (128, 784), 3),
    "mlp 784-4096-4096-10": Case(lambda: mlp(784, 4096, 4096, 10), (128, 784), 0.5),
}


def train(
    case: Case, steps: int, store: Path | None, kind: str = ""
) -> tuple[list[Tensor], tuple[float, float, float]]:
    """Train from one seed; return the final weights, and the wall, CPU and waited seconds."""
    torch.manual_seed(0)
    model = case.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, foreach=False)
    inputs, labels = torch.randn(8, *case.batch), torch.randint(0, 10, (8, case.batch[0]))
    wall, cpu, waited = time.perf_counter(), time.process_time(), 0.0
    held: AbstractContextManager[UpdateRecorder | None] = nullcontext()
    if store is not None:
        held = UpdateRecorder(model, optimizer, store, kind=kind, checkpoint_every=steps)
    with held as recorder:
        for step in range(steps):
            with nullcontext() if recorder is None else recorder.step([step]):
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(model(inputs[step % 8]), labels[step % 8])
                loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
                optimizer.step()
    if recorder is not None:
        waited = recorder.waited_seconds
    spent = time.perf_counter() - wall, time.process_time() - cpu, waited
    return [value.detach().clone() for value in model.state_dict().values()], spent


def compare(name: str, kind: str, case: Case, rounds: int, steps: int) -> None:
    """Print a line for a network and a kind of archive."""
    plain, recorded, size, checkpoints = [], [], 0, []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            store = Path(folder, "store")
            expected, before = train(case, steps, None)
            found, after = train(case, steps, store, kind)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), name
            size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
            shutil.rmtree(store)
            alone = train(case, 1, store, kind)[1][1] - train(case, 1, None)[1][1]  # with the first and the last
            shutil.rmtree(store)
            if number:  # the first round warms up
                checkpoints.append(alone / 2)
                plain.append(before)
                recorded.append(after)
    extra = statistics.median(checkpoints)
    share = steps / steps_of_a_segment(case.build(), None, recomputes=ARCHIVES[kind].recomputes) - 2  # of checkpoints
    wall, cpu = (
        statistics.median((b[k] + share * extra) / a[k] for a, b in zip(plain, recorded, strict=True)) for k in (0, 1)
    )
    waited = statistics.median(r[2] for r in recorded)
    each = statistics.median(a[1] for a in plain) / steps * 1e3
    print(
        f"{name}, {kind}: {steps} steps of {each:.2f} ms CPU; recorded/unrecorded CPU {cpu:.3f}, wall {wall:.3f}; "
        f"archive {size / 1e6:.1f} MB ({size / steps / 1e6:.3f} a step); waited {waited:.2f} s; "
        f"a checkpoint {extra * 1e3:.0f} ms",
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
