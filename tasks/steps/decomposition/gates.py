"""The gates stage: class-specific gates of a finished training, measured on a split (CSG, Liang et al. 2020).

With gates an image is classified from the channels that its true class leaves open. Therefore the CSG accuracy needs a
labelled split and is not the accuracy of a classifier. It measures the share of a class that the open channels carry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.chain import tensor_file
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.survey import state_bytes
from tasks.steps.common.trainer import set_deterministic
from tasks.steps.common.trials import example_input, spread
from tasks.steps.decomposition.features import head_shapes

if TYPE_CHECKING:
    import torch

    from tasks.training.gates import ClassGates

VERSION = 2
ROWS = 256  # images at a time
OPEN = 0.5  # a gate above this value counts as open


def gates_spec(training: StageSpec, split: str, k: int) -> StageSpec:
    """Return the spec of the measurements of a training's gates.

    Parameters
    ----------
    training : a training with `gates`
    split : labelled images for the accuracies
    k : number of channels with the largest gates, per class

    Raises
    ------
    ValueError : the training does not have gates
    """
    if training.place["train"]["gates"] is None:
        raise ValueError(f"networks: expected gates in training {training.label}, found none; set its `train.gates`")
    parameters: Document = {"network": training.parameters["network"], "split": split, "k": k}
    inputs = {"network": training, "data": training.inputs["data"]}
    place = {"network": training.place["network"]}
    return GATES.spec(parameters, inputs, place=place, label=f"{training.label} {split} k {k}")


def read_gates(store: Store, training: StageSpec) -> NDArray[np.float32]:
    """Return the gate matrix of a finished training, (K, C), channels by classes."""
    from tasks.io.tensors import unpack_tensors
    from tasks.training.gates import GATE_MATRIX

    tensors = unpack_tensors(open_finished(store, training).read_file(tensor_file(GATE_MATRIX)))
    gates: NDArray[np.float32] = tensors[GATE_MATRIX].numpy()
    return gates


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition, since the arrays are small."""
    n_channels, n_classes = read_gates(store, spec.inputs["network"]).shape
    k = int(spec.parameters["k"])
    if k > n_channels:
        raise ValueError(f"{spec.title}: expected at most the last map's {n_channels} channels per class, found {k}")
    gates = ArrayLayout((n_channels, n_classes), "float32", ("channel", "class"), n_channels, n_channels)
    indices = ArrayLayout((n_classes, k), "int64", ("class", "k"), n_classes, n_classes)
    return Layout(1, {"gates": gates, "indices": indices})


def _partition(work: Work, number: int) -> None:
    """Classify the split without and with the gates of the true labels, `ROWS` images at a time."""
    import torch

    from tasks.training.gates import ClassGates, largest_gates

    stage, device = work.stage, choose_device(work.device)
    with stage.partition(number) as part:
        gates = read_gates(stage.store, stage.spec.inputs["network"])
        indices, tied = largest_gates(gates, int(stage.spec.parameters["k"]))
        n, right = _count_right(stage, ClassGates.of(torch.from_numpy(gates)), device)
        part.write("gates", gates)
        part.write("indices", indices)
        part.numbers.update(
            measured(
                split=stage.spec.parameters["split"],
                samples=n,
                std_accuracy=right[0] / n,
                csg_accuracy=right[1] / n,
                mean_gate=float(gates.mean(dtype=np.float64)),
                open_share=float((gates > OPEN).mean()),
                ties=int(tied.sum()),
            )
        )


def _count_right(stage: Stage, gates: ClassGates, device: torch.device) -> tuple[int, list[int]]:
    """Return the number of images, and how many are classified correctly without and with gates."""
    import torch

    from tasks.capture import LAST_MAP, split_at

    set_deterministic(device)
    store, spec = stage.store, stage.spec
    split = str(spec.parameters["split"])
    fetch = open_fetch(store, spec, split, device, MEMORY_SAMPLES)
    n = len(positions(store, spec.inputs["data"].path, split))
    images, _ = fetch(spread(n))
    example = example_input(tuple(images.shape[1:])).to(device)
    network = split_at(load_network(store, spec, device), LAST_MAP, example, images=images)
    gates, right = gates.to(device), [0, 0]
    with torch.inference_mode():
        for start in range(0, n, ROWS):
            inputs, labels = fetch(np.arange(start, min(start + ROWS, n), dtype=np.int64))
            maps = network.trunk(inputs)
            for index, shown in enumerate((maps, gates(maps, labels))):
                right[index] += int((network.head(shown).argmax(1) == labels).sum())
    return n, right


def _summary(stage: Stage) -> Document:
    """Return the accuracies and the openness of the gates."""
    record = stage.marker(0)
    assert record is not None
    keys = ("split", "samples", "std_accuracy", "csg_accuracy", "mean_gate", "open_share", "ties")
    return {key: record["numbers"][key] for key in keys}


def _size(spec: StageSpec, survey: Survey) -> Size:
    survey.data(spec.inputs["data"]).split(spec.parameters["split"])
    head, weights = head_shapes(spec, survey), state_bytes(survey.blank(spec))
    gates = head.features * head.outputs
    written = 4 * gates + 8 * head.outputs * int(spec.parameters["k"])
    return Size(written, MEMORY_SAMPLES + 6 * gates * 4 + ROWS * 6 * 4 * head.largest + weights)


GATES = Step("gates", VERSION, _layout, _partition, _size, summary=_summary, network=True)
