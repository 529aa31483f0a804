"""What layerlore does on a GPU, in one script of at most eight minutes: the same numbers as on a CPU, and the costs.

    python -m benchmarks.gpu [--minutes 8] [--small] [--write FILE] [--no-tests]

Needs torch, torchvision and layerlore's sources; a part whose packages are missing is a row that says so. Without a GPU
it runs on the CPU at small sizes (--small), which shows that it works. Times are wall-clock with the device waited for,
medians of some rounds after a first one. A row that would begin after --minutes is left out, and the table says so.
"""

import argparse
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Doubles = NDArray[np.float64]

ROUNDS = 5
QUERIES = (1, 100, 1000)
KINDS = ("dense", "hybrid", "replay")


@dataclass(frozen=True)
class Sizes:
    """How large the parts are."""

    width: int  # of VGG-16's first convolution: 64 is the paper's
    batch: int
    steps: int
    queries: tuple[int, ...]
    images: int  # a batch of ResNet-50
    side: int
    rows: int  # of the matrices
    words: int


LARGE = Sizes(width=64, batch=128, steps=200, queries=QUERIES, images=128, side=224, rows=63_700, words=20_000)
SMALL = Sizes(width=4, batch=16, steps=8, queries=(1, 10), images=2, side=64, rows=2_000, words=200)


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    part: str
    case: str
    found: str


@dataclass(frozen=True)
class Bench:
    """The device and the sizes of a run."""

    device: torch.device
    sizes: Sizes
    end: float = math.inf  # of the time, as time.monotonic counts

    def seconds(self, work: Callable[[], object], rounds: int = ROUNDS) -> float:
        """Return the median wall time of a call, after a first one."""
        found = []
        for number in range(rounds + 1):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            if number:
                found.append(time.perf_counter() - start)
        return statistics.median(found)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def recordings(bench: Bench) -> Iterator[Row]:
    """Recording and explaining of VGG-16, kind by kind."""
    from benchmarks.recording import Case, Loop, vgg
    from tasks.capture import capture_inputs
    from tasks.recording import UpdateRecorder, open_updates

    case = Case(lambda: vgg(bench.sizes.width), (bench.sizes.batch, 3, 32, 32), 1)

    def program() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Any], None]]:  # Any: a row of the archive
        loop = Loop(case, bench.device)
        return loop.model, loop.optimizer, lambda row: loop.step(row.step)

    steps, plain = bench.sizes.steps, Loop(case, bench.device)

    def train() -> None:
        for step in range(steps):
            plain.step(step)

    alone = bench.seconds(train, rounds=1) / steps
    yield Row(
        "training", f"VGG-16, width {bench.sizes.width}, batch {bench.sizes.batch}", f"{alone * 1e3:.2f} ms a step"
    )
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            store, loop = Path(folder, "store"), Loop(case, bench.device)
            bench.wait()
            start = time.perf_counter()
            with UpdateRecorder(loop.model, loop.optimizer, store, kind=kind, checkpoint_every=steps) as recorder:
                for step in range(steps):
                    with recorder.step([step % 8]):
                        loop.step(step)
                bench.wait()
                each = (time.perf_counter() - start) / steps
            size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
            said = f"{each / alone:.2f} of a step unrecorded, {size / steps / 1e6:.2f} MB a step"
            yield Row("recording", f"{kind}, {steps} steps", said)
            again = Loop(case, bench.device)
            source = open_updates(str(store), program=program)
            weights = {layer: source.final(layer) for layer in source.layers}
            for queries in bench.sizes.queries:
                images = torch.randn(queries, 3, 32, 32, device=bench.device)
                again.model.eval()
                inputs = capture_inputs(again.model, source.layers, images)
                start = time.perf_counter()
                for segment in source.segments():
                    for block in source.blocks(segment):
                        module = again.model.get_submodule(block.layer)
                        block.project(module, weights[block.layer], inputs[block.layer])
                bench.wait()
                spent = time.perf_counter() - start
                yield Row(
                    "explaining", f"{kind}, {queries} queries, all layers", f"{spent / steps * 1e3:.1f} ms a step"
                )


def extraction(bench: Bench) -> Iterator[Row]:
    """Maps and logits of ResNet-50 against its bare forward pass."""
    from torchvision.models import resnet50

    from tasks.capture import capture_batch, split_at

    model, side = resnet50().eval().to(bench.device), bench.sizes.side
    split = split_at(model, "layer4", torch.zeros(1, 3, side, side, device=bench.device))
    images = torch.randn(bench.sizes.images, 3, side, side)

    def bare() -> object:
        with torch.inference_mode():
            return model(images.to(bench.device)).cpu()

    plain, ours = bench.seconds(bare), bench.seconds(lambda: capture_batch(split, images))
    said = f"{bench.sizes.images / ours:.0f} images/s, {ours / plain:.2f} of the forward pass"
    yield Row("extraction", f"ResNet-50, {side} px, layer4", said)


def matrices(bench: Bench) -> Iterator[Row]:
    """NMF, the mu-lasso and similarities on the device against the CPU."""
    from tasks.detectors import SIMILARITIES
    from tasks.interpreters.ice import fit_nmf
    from tasks.interpreters.vebi import mu_lasso

    rng = np.random.default_rng(0)
    parts = rng.random((bench.sizes.rows, 10), dtype=np.float32) @ rng.random((10, 512), dtype=np.float32)
    maps = torch.from_numpy(np.maximum(parts + rng.standard_normal(parts.shape, dtype=np.float32), 0))
    yield both(bench, "NMF, r = 10", maps, lambda a: fit_nmf(a, 10).relative_error)

    labels = torch.eye(10, dtype=torch.float64)[torch.arange(bench.sizes.rows) % 10]

    def lasso(a: Tensor) -> Doubles:
        wide = a.double()
        moment = wide.T @ labels.to(a.device)
        return mu_lasso((wide.T @ wide).cpu().numpy(), moment.cpu().numpy(), 10.0)

    yield both(bench, "mu-lasso, 512 units", maps, lasso)
    activations, scores = maps[:2000, :128], torch.from_numpy(rng.standard_normal((2000, bench.sizes.words))).float()
    words = {device: scores.to(device) for device in ("cpu", bench.device.type)}
    for name in ("cos", "cos_cubed", "soft_wpmi"):
        similarity = SIMILARITIES[name]

        def similar(a: Tensor, similarity: Callable[..., object] = similarity) -> object:
            return similarity(a, words[a.device.type])

        yield both(bench, f"{name}, 128 neurons", activations, similar)


def tallies(bench: Bench) -> Iterator[Row]:
    """Network Dissection counts on the CPU; the maps of the network are the device's."""
    from tasks.detectors.network_dissection import dissect

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 5, stride=4), nn.ReLU())
    images = torch.rand(8, 3, 32, 32)
    masks, labels = np.arange(8 * 16).reshape(8, 1, 4, 4) % 5, np.arange(6) % 2
    labels[0] = -1

    def overlaps(values: Tensor) -> Doubles:
        with torch.inference_mode():
            maps = network.to(values.device)(values).cpu().numpy()
        return dissect(maps, masks, labels, quantile=0.05).iou

    yield both(bench, "Network Dissection", images, overlaps)


def counterfactuals(bench: Bench) -> Iterator[Row]:
    """The exact derivative of a training on the device against the CPU, in float64."""
    from tasks.tracing import training_derivatives

    @dataclass(frozen=True)
    class Step:
        examples: NDArray[np.int64]
        lr: float = 0.05

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    images, labels = torch.randn(200, 64).double(), torch.arange(200) % 10
    rows = [Step(np.arange(16) * 7 % 200 + step % 8) for step in range(40)]

    def derivatives(examples: Tensor) -> Doubles:
        device = examples.device
        here, answers = model.to(device), labels.to(device)
        start = {name: value.detach().clone() for name, value in here.named_parameters()}

        def losses(parameters: Mapping[str, Tensor], row: Step) -> Tensor:
            ids = torch.from_numpy(row.examples % 200).to(device)
            found = functional_call(here, dict(parameters), (examples[ids],))
            return F.cross_entropy(found, answers[ids], reduction="none")

        def margins(parameters: Mapping[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(here, dict(parameters), (examples[:5],))
            return found[:, 0] - found[:, 1]

        settings = {"kind": "sgd", "momentum": 0.9}
        return training_derivatives(losses, settings, start, rows, margins).derivatives

    yield both(bench, "counterfactual, 40 steps", images, derivatives)


def both(bench: Bench, case: str, values: Tensor, work: Callable[[Tensor], object]) -> Row:
    """Return the row of a computation on the CPU and on the device."""
    there = values.to(bench.device)
    slow, fast = bench.seconds(lambda: work(values), rounds=1), bench.seconds(lambda: work(there), rounds=1)
    ours, theirs = (np.asarray(torch.as_tensor(work(each)).cpu(), dtype=np.float64) for each in (values, there))
    difference = float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-30))
    return Row("same numbers", case, f"{slow / fast:.1f} times the CPU's speed, largest difference {difference:.1e}")


def marked_tests(bench: Bench) -> Iterator[Row]:
    """The project's own tests on a GPU, without those of other files, which need more packages."""
    if bench.device.type != "cuda":
        yield Row("tests", "marked `gpu`", "not run: no GPU")
        return
    home = Path(__file__).resolve().parent.parent
    files = [file for file in sorted((home / "tests").rglob("test_*.py")) if "@pytest.mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--noconftest"]
    left = min(max(bench.end - time.monotonic(), 1.0), 3600.0)
    try:
        ended = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, cwd=home, timeout=left)
    except subprocess.TimeoutExpired:
        yield Row("tests", "marked `gpu`", f"stopped after {left:.0f} s")
        return
    last = (ended.stdout.strip().splitlines() or ended.stderr.strip().splitlines() or ["no output"])[-1]
    yield Row("tests", "marked `gpu`", last.strip("= "))


PARTS: tuple[Callable[[Bench], Iterator[Row]], ...] = (
    marked_tests,
    extraction,
    matrices,
    tallies,
    counterfactuals,
    recordings,
)


def rows_of(bench: Bench, parts: Iterable[Callable[[Bench], Iterator[Row]]], minutes: float) -> Iterator[Row]:
    """Yield the rows of all parts; one that cannot run is a row that says why."""
    end = time.monotonic() + 60 * minutes
    bench = replace(bench, end=end)
    for part in parts:
        name = part.__name__.replace("_", " ")
        if time.monotonic() > end:
            yield Row(name, "", f"not run: {minutes:g} minutes are over")
            continue
        try:
            for row in part(bench):
                yield row
                if time.monotonic() > end:
                    yield Row(name, "", f"stopped: {minutes:g} minutes are over")
                    break
        except (ImportError, torch.OutOfMemoryError) as error:
            yield Row(name, "", f"not run: {str(error).splitlines()[0]}")


def main() -> None:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--small", action="store_true", help="small sizes; always so without a GPU")
    parser.add_argument("--no-tests", action="store_true", help="without the tests marked `gpu`")
    parser.add_argument("--write", type=Path, help="file for the table")
    asked = parser.parse_args()
    cuda = torch.cuda.is_available()
    bench = Bench(torch.device("cuda" if cuda else "cpu"), LARGE if cuda and not asked.small else SMALL)
    place = torch.cuda.get_device_name() if cuda else f"no GPU: {platform.machine()} CPU, small sizes"
    lines = [f"{place}, torch {torch.__version__}, Python {platform.python_version()}", ""]
    lines += ["| Part | Case | Found |", "| --- | --- | --- |"]
    print("\n".join(lines), flush=True)
    for row in rows_of(bench, PARTS[1:] if asked.no_tests else PARTS, asked.minutes):
        lines.append(f"| {row.part} | {row.case} | {row.found} |")
        print(lines[-1], flush=True)
        if asked.write:
            asked.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
