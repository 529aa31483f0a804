"""A data set and stages of ImageNet's size without ImageNet: linked pictures, random features for a network's.

What a network would write is written by the project's own layouts, shards and records; only its values are
drawn. Maps (257 GB at full size) and logits are left out: nothing that is measured reads them.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, begin_stage, find_finished, marker_name
from storage.stores import Store
from tasks.io.networks import build_model
from tasks.steps.common.activations import activations_layout, range_summary
from tasks.steps.common.manifest import positions
from tasks.steps.common.shapes import Shapes
from tasks.steps.decomposition.features import penultimate_layout

SAMPLES, CLASSES = 1_281_167, 1000  # of ImageNet's training split
LARGEST, SMALLEST = 1300, 732  # its classes
AT_MOST = 895 / 1000  # share of its classes that have the largest size
VAL = 50 / 1281  # samples of the validation split to one of the training split
FEATURES, SIDE = 2048, 7  # of the last map of a ResNet-50
INPUT, OUTPUTS = (3, 224, 224), 1000
LINKS = 30_000  # names that one picture may have; a file system may stop at 65,000
SPREAD = 0.4  # of the noise about a class's centre, whose coordinates lie in 0..1

Ids = NDArray[np.int64]
Made = dict[str, NDArray[np.generic]]
Make = Callable[[int, Ids], Made]  # a partition's number and labels


def class_sizes(samples: int = SAMPLES, classes: int = CLASSES) -> Ids:
    """Return sizes as ImageNet's: most classes have the largest, the rest fall off to 0.56 of it, and the sum is exact.

    Parameters
    ----------
    samples : in all
    classes : how many

    Returns
    -------
    (classes,) int64, at least 1 each
    """
    tail = classes - round(AT_MOST * classes)
    # A power of a ramp: its exponent is what gives ImageNet's 105 smaller classes their mean of 1,120.
    ramp = np.linspace(0, 1, tail, endpoint=False) ** 0.451 if tail else np.empty(0)
    shape = np.concatenate([np.rint(SMALLEST + (LARGEST - SMALLEST) * ramp), np.full(classes - tail, float(LARGEST))])
    sizes: Ids = np.floor(shape * (samples * CLASSES / (SAMPLES * classes))).astype(np.int64)
    sizes += (samples - int(sizes.sum()) + np.arange(classes)[::-1]) // classes  # the smaller classes first
    if sizes.min() < 1:
        raise ValueError(f"{samples} samples do not make {classes} classes; ask for more of them")
    return sizes


def make_pictures(root: Path, sizes: Ids, *, side: int = 256) -> None:
    """Make ROOT/{train,val}/CLASS/*.JPEG in torchvision's layout: links to a few pictures, so that they take no disk.

    Parameters
    ----------
    root : made
    sizes : (C,) training samples by class; the validation split has a share of each
    """
    root.mkdir(parents=True)
    rng, made = np.random.default_rng(0), 0
    picture = root / "picture-0.jpg"
    for split, counts in (("train", sizes), ("val", np.maximum(1, np.rint(sizes * VAL).astype(np.int64)))):
        for label, count in enumerate(counts.tolist()):
            name = f"n{label:08d}"
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                if made % LINKS == 0:
                    picture = root / f"picture-{made // LINKS}.jpg"
                    Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(picture)
                os.link(picture, folder / f"{name}_{number:06d}.JPEG")
                made += 1


def make_weights(path: Path, model: str) -> None:
    """Write a network of drawn weights to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(build_model(model, {}, 0).state_dict(), path)


def write_activations(store: Store, spec: StageSpec, threads: int, donor: Store | None = None) -> None:
    """Write an activations stage of drawn pooled features, without maps and logits, in the layout of a ResNet-50.

    Parameters
    ----------
    donor : a store on the same disk whose samples begin with these: its shards are linked where they are the same
    """
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    whole = activations_layout(
        len(rows), Shapes(INPUT, (FEATURES, SIDE, SIDE), OUTPUTS, 0), str(spec.parameters["dtype"])
    )
    kept = {name: whole.arrays[name] for name in ("sample_id", "label", "content", "pooled")}
    stage = begin_stage(store, spec, Layout(whole.partitions, kept))
    _fill(stage, threads, donor, lambda number, labels: {"pooled": draw_features(labels, [1, number])})
    stage.seal({**range_summary(stage), "map": [SIDE, SIDE, FEATURES], "input": list(INPUT)})


def write_penultimate(store: Store, spec: StageSpec, threads: int, donor: Store | None = None) -> None:
    """Write a penultimate stage of drawn features, without logits; `donor` as above."""
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    whole = penultimate_layout(len(rows), FEATURES, OUTPUTS, str(spec.place["dtype"]))
    kept = {name: layout for name, layout in whole.arrays.items() if name != "logits"}
    stage = begin_stage(store, spec, Layout(whole.partitions, kept))
    _fill(stage, threads, donor, lambda number, labels: {"features": draw_features(labels, [2, number])})
    stage.seal({**range_summary(stage), "features": FEATURES, "outputs": OUTPUTS})


def draw_features(labels: Ids, seed: list[int]) -> NDArray[np.float16]:
    """Return non-negative features about a centre for each class, (m, 2048) float16; a share of about 0.1 are zeros.

    Parameters
    ----------
    labels : (m,) int64
    seed : of the noise; the centres hang on the label alone
    """
    values = np.random.default_rng(seed).standard_normal((len(labels), FEATURES), dtype=np.float32)
    values *= SPREAD
    for label in np.unique(labels).tolist():
        centre = np.random.default_rng([0, label]).random(FEATURES, dtype=np.float32)
        values[labels == label] += centre
    return np.maximum(values, 0).astype(np.float16)


def _fill(stage: Stage, threads: int, donor: Store | None, make: Make) -> None:
    """Write the partitions of a stage: ids and labels from the manifest, the rest from `make`."""
    given = None if donor is None else find_finished(donor, f"{stage.spec.stage}/{donor.names(stage.spec.stage)[0]}")
    rows = positions(stage.store, stage.spec.inputs["data"].path, stage.spec.parameters["split"])
    known = rows["id"].to_numpy(np.int64), rows["label_given"].to_numpy(np.int64)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(partial(_write, stage, given, make, known), stage.missing()):
            pass


def _write(stage: Stage, donor: FinishedStage | None, make: Make, known: tuple[Ids, Ids], number: int) -> None:
    """Write one partition, or link it where the donor has it whole."""
    span = stage.layout.arrays["label"].span(number)
    ids, labels = (values[slice(*span)] for values in known)
    if donor is not None and donor.layout.arrays["label"].span(number) == span:
        _link(stage, donor, number, ids)
        return
    with stage.partition(number) as part:
        arrays: Made = {"sample_id": ids, "label": labels, **make(number, labels)}
        arrays["content"] = np.random.default_rng([4, number]).integers(0, 256, (len(ids), 16), dtype=np.uint8)
        for name in stage.layout.arrays:
            part.write(name, np.ascontiguousarray(arrays[name]))


def _link(stage: Stage, donor: FinishedStage, number: int, ids: Ids) -> None:
    """Give a stage the donor's shards and record of a partition."""
    theirs = donor.read("sample_id", *donor.layout.arrays["sample_id"].span(number))
    assert np.array_equal(theirs, ids), (stage.spec.title, number)
    for name in stage.layout.arrays:
        source = donor.shard_path(name, number)
        place = Path(stage.store.path(source.replace(donor.path, stage.spec.path)))
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(donor.store.path(source), place)
    record = f"markers/{marker_name(number)}"
    stage.store.write(f"{stage.spec.path}/{record}", donor.store.read(f"{donor.path}/{record}"))
