"""Extraction of activations: against a bare forward pass with a hook, and captum's LayerActivation."""

import importlib
import importlib.util
import io
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.extraction import draw_images, plan_for
from benchmarks.peers.measuring import Failed, in_milliseconds, in_turn
from benchmarks.peers.sections import Section, Table, number, time_of
from storage.stores import open_store
from tasks.capture import capture_batch, capture_layers, split_at
from tasks.cluster.parallel import SerialPool, keep_freed_memory
from tasks.engine.life import Job, complete
from tasks.engine.observers import LineObserver
from tasks.io.images import preprocess
from tasks.io.networks import build_model
from tasks.io.sources import open_source
from tasks.splitting.outputs import find_layouts
from tasks.steps.common.activations import ACTIVATIONS
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.questions import STEPS

Array = np.ndarray[Any, Any]  # Any: float32
LARGE, SMALL = ("squeezenet1_1", "features.12", (16, 3, 224, 224)), ("small-cnn", "5", (256, 1, 8, 8))
BARE, CAPTUM = "bare forward pass, hook to memory", "captum LayerActivation"


def measure(*, quick: bool, rounds: int) -> Section:
    """Compare batches in memory, then images of a folder with the store."""
    warnings.simplefilter("ignore")
    keep_freed_memory()
    section, rows = Section(), []
    for case in (SMALL,) if quick else (SMALL, LARGE):
        rows += in_memory(section, rounds, *case)
    heads = ("network, batch", "side", "CPU", "of the bare pass", "largest difference")
    note = (
        "layerlore's arrays have the channel last, and the logits come with them: a copy that the others do not make."
    )
    section.tables.append(Table("Batches in memory", heads, rows, (note,)))
    section.tables.append(from_folder(section, rounds, 8 if quick else 64))
    return section


def hooked(model: nn.Module, layer: str, images: Tensor) -> Array:
    """Return a module's output by a plain hook."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _given, output: kept.append(output))
    try:
        with torch.inference_mode():
            model(images)
    finally:
        handle.remove()
    found: Array = kept[-1].numpy().copy()
    return found


def captum_side(model: nn.Module, layer: str) -> Callable[[Tensor], Array]:
    """Return captum's extraction."""
    made = importlib.import_module("captum.attr").LayerActivation(model, model.get_submodule(layer))

    def extract(images: Tensor) -> Array:
        with torch.no_grad():
            found: Array = made.attribute(images).detach().numpy().copy()
        return found

    return extract


def in_memory(
    section: Section, rounds: int, name: str, layer: str, shape: tuple[int, int, int, int]
) -> list[tuple[str, ...]]:
    """Return the rows of one network."""
    model, images = build_model(name, {}, 0).eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    split, layouts = split_at(model, layer, images[:2]), find_layouts(model, [layer], images[:1])
    sides: dict[str, Callable[[], Array]] = {BARE: partial(hooked, model, layer, images)}
    if importlib.util.find_spec("captum"):
        sides[CAPTUM] = partial(captum_side(model, layer), images)
    sides["layerlore, capture_layers"] = lambda: _channels_first(capture_layers(model, [layer], images, layouts)[layer])
    sides["layerlore, capture_batch"] = lambda: _channels_first(capture_batch(split, images)[0])
    found, case = in_milliseconds(sides, rounds), f"{name} to {layer}, {shape[0]} images of {shape[2]} px"
    bare = found[BARE]
    assert not isinstance(bare, Failed), bare
    rows: list[tuple[str, ...]] = []
    for title, one in found.items():
        if isinstance(one, Failed):
            rows.append((case, title, f"could not be run: {one.reason}", "", ""))
            continue
        gap = float(np.abs(one.result - bare.result).max())
        rows.append((case, title, time_of(one.seconds), number(one.seconds / bare.seconds), f"{gap:.0e}"))
    ours, theirs = found["layerlore, capture_batch"], found.get(CAPTUM)
    if not isinstance(ours, Failed):
        section.judge(f"Activations of {case}", ours.seconds, bare.seconds, "a bare forward pass")
        if theirs is not None and not isinstance(theirs, Failed):
            section.judge(f"Activations of {case}", ours.seconds, theirs.seconds, CAPTUM)
    if CAPTUM not in sides:
        rows.append((case, CAPTUM, "not installed", "", ""))
    return rows


def _channels_first(maps: Array) -> Array:
    """Return a view (n, d, h, w) of maps (n, h, w, d)."""
    return np.moveaxis(maps, -1, 1)


def from_folder(section: Section, rounds: int, n: int) -> Table:
    """Return what JPEG images cost: decoded and passed through the network into memory, and by the stage."""
    name, layer, _ = LARGE
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        draw_images(root / "drawn", n)
        plan = plan_for(root / "drawn", root / "store", name, layer)
        spec = next(one for one in plan.stages if one.stage == ACTIVATIONS.kind)
        job = Job(open_store(str(root / "store"), create=True), SerialPool(), LineObserver(io.StringIO()))
        complete(job, STEPS["manifest"], [spec.inputs["data"]])
        keys = positions(job.store, spec.inputs["data"].path, "val")["key"].tolist()
        source, settings = (
            open_source(plan.config.data["drawn"], threads=1),
            preprocessing_of(spec.parameters["network"]),
        )
        model = build_model(name, {}, 0).eval()

        def bare() -> None:
            for start in range(0, n, 16):
                part = keys[start : start + 16]
                read = zip(source.read(part), part, strict=True)
                hooked(model, layer, torch.stack([preprocess(sample.image, settings, key) for sample, key in read]))

        def stage() -> None:
            shutil.rmtree(root / "store" / spec.path, ignore_errors=True)
            complete(job, ACTIVATIONS, [spec])

        sides: dict[str, Callable[[], None]] = {
            "images decoded, bare forward pass, hook to memory": bare,
            "layerlore's stage: the same into the store, checked, compressed and checksummed": stage,
        }
        found = in_turn(sides, rounds)
    times = {title: one.seconds for title, one in found.items() if not isinstance(one, Failed)}
    without, with_store = times.values()  # both sides are this project's own: a failure is a fault
    section.judge(f"Activations of {n} JPEG images", with_store, without, "a bare loop")
    rows = [(title, time_of(seconds), number(seconds / without)) for title, seconds in times.items()]
    return Table(f"{n} JPEG images of a folder, {name} to {layer}", ("side", "CPU", "of the bare loop"), rows)
