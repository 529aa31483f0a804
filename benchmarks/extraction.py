"""Extraction: the activations stage against decoding and forward pass measured apart, and its memory against n.

    python -m benchmarks.extraction [--images 256] [--rounds 3] [--model squeezenet1_1] [--layer features.12]

Draws a folder of JPEG images, then interleaves in one process and one thread: (a) decoding and preprocessing alone,
(b) trunk and head alone, (c) the whole stage with its checks, digests and checksummed writes. Prints
(a + b) / c in wall and CPU time: the share of its time that the stage spends on what cannot be saved. Then the
stage's peak memory, each n in a process of its own.
"""

import argparse
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from configs.schema import Config
from flows.plan import Plan, make_plan
from storage.stores import open_store
from tasks.capture import capture_batch
from tasks.cluster.parallel import SerialPool, keep_freed_memory
from tasks.engine.life import Job, complete, peak_memory_mb, reset_peak_memory
from tasks.engine.observers import LineObserver
from tasks.io.images import preprocess
from tasks.io.networks import build_model
from tasks.io.sources import open_source
from tasks.steps.common.activations import ACTIVATIONS, batch_size
from tasks.steps.common.manifest import MANIFEST, positions
from tasks.steps.common.networks import load_network, preprocessing_of
from tasks.steps.common.probing import probe
from tasks.steps.common.trials import example_input

CLASSES = 4


def draw_images(folder: Path, n: int, side: int = 240) -> None:
    """Write n smooth random JPEG images in CLASSES class folders of a split `val`."""
    rng = np.random.default_rng(0)
    for number in range(n):
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        target = folder / "val" / f"class{number % CLASSES}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(target / f"{number:06d}.jpg")


def plan_for(folder: Path, store: Path, model: str, layer: str) -> Plan:
    """Return the plan of a run that has the activations of the drawn images."""
    weights = folder / f"{model}.safetensors"
    if not weights.exists():
        state = build_model(model, {}, 0).state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, weights)
    return make_plan(
        Config.model_validate(
            {
                "name": "extraction",
                "store": str(store),
                "cluster": {"kind": "serial"},
                "data": {"drawn": {"source": "image-folder", "paths": {"val": str(folder / "val")}}},
                "networks": {
                    "net": {
                        "model": model,
                        "weights": str(weights),
                        "preprocessing": {
                            "resize": 256,
                            "crop": 224,
                            "mean": [0.485, 0.456, 0.406],
                            "std": [0.229, 0.224, 0.225],
                        },
                    }
                },
                "interpretation": {
                    "networks": ["net"],
                    "layer": layer,
                    "learn": "val",
                    "selectors": {"random": {}},
                    "budgets": [1.0],
                    "interpreters": {"ice": {}},
                },
            }
        )
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def throughput(plan: Plan, root: Path, rounds: int) -> None:
    """Print the stage's time and that of its two parts."""
    torch.set_num_threads(1)
    keep_freed_memory()
    spec = next(one for one in plan.stages if one.stage == ACTIVATIONS.kind)
    job = Job(open_store(str(root), create=True), SerialPool(), LineObserver(io.StringIO()))
    complete(job, MANIFEST, [spec.inputs["data"]])
    keys = positions(job.store, spec.inputs["data"].path, "val")["key"].tolist()
    source, settings = open_source(plan.config.data["drawn"], threads=1), preprocessing_of(spec.parameters["network"])
    model = load_network(job.store, spec, torch.device("cpu"))
    example = example_input((3, 224, 224))
    split, shapes = probe(model, spec.parameters["layer"], example)
    size = batch_size(shapes.inputs)

    def decode() -> list[torch.Tensor]:
        return [preprocess(s.image, settings, k) for s, k in zip(source.read(keys), keys, strict=True)]

    whole = torch.stack(decode())
    batches = [b.contiguous(memory_format=torch.channels_last) for b in torch.split(whole, size)]

    def forward() -> None:
        for batch in batches:
            capture_batch(split, batch)

    def stage() -> None:
        shutil.rmtree(root / "activations", ignore_errors=True)
        complete(job, ACTIVATIONS, [spec])

    stage()  # the first time loads and checks the network
    rows = [(timed(decode), timed(forward), timed(stage)) for _ in range(rounds)]
    for index, kind in enumerate(("wall", "CPU")):
        a, b, c = (statistics.median(row[part][index] for row in rows) for part in range(3))
        print(
            f"{kind}: decoding {len(keys) / a:.1f} images/s, forward {len(keys) / b:.1f}, stage {len(keys) / c:.1f}; "
            f"(decoding + forward) / stage = {(a + b) / c:.3f}"
        )


def memory(folder: Path, root: Path, model: str, layer: str) -> None:
    """Print the peak memory of the stage on the images in `folder`; runs in a process of its own."""
    plan = plan_for(folder, root, model, layer)
    spec = next(one for one in plan.stages if one.stage == ACTIVATIONS.kind)
    job = Job(open_store(str(root), create=True), SerialPool(), LineObserver(io.StringIO()))
    complete(job, MANIFEST, [spec.inputs["data"]])
    reset_peak_memory()
    complete(job, ACTIVATIONS, [spec])
    written = sum(size for name, size in job.store.files(spec.path).items() if "/c/" in name)
    images = len(positions(job.store, spec.inputs["data"].path, "val"))
    print(f"{images} images: peak {peak_memory_mb():.0f} MB, {written / 1e6:.0f} MB written")


def main() -> None:
    """Run the benchmark."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--images", type=int, default=256)
    cli.add_argument("--rounds", type=int, default=3)
    cli.add_argument("--model", default="squeezenet1_1")
    cli.add_argument("--layer", default="features.12")
    cli.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    args = cli.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if args.memory_of is not None:
            memory(args.memory_of, root / "store", args.model, args.layer)
            return
        draw_images(root / "drawn", args.images)
        throughput(plan_for(root / "drawn", root / "store", args.model, args.layer), root / "store", args.rounds)
        for factor in (1, 2, 4):
            drawn = root / f"drawn{factor}"
            draw_images(drawn, args.images * factor)
            command = [sys.executable, "-m", "benchmarks.extraction", "--memory-of", str(drawn), "--model", args.model]
            result = subprocess.run([*command, "--layer", args.layer], capture_output=True, text=True, check=True)
            print(f"{result.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
