"""The unit-responses stage: how strongly each sample excites each unit, over all ReLU calls up to the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import batch_size, first_input, map_shapes, open_split
from tasks.steps.common.networks import choose_device
from tasks.steps.common.probing import how_read, probe
from tasks.steps.common.samples import read_positions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.capture import Split

VERSION = 1
PARTITION_BYTES = 48 * 2**20
MAX_ROWS = 1024


def responses_spec(activations: StageSpec, kind: str) -> StageSpec:
    """Return the spec of the responses of the samples of an activations stage."""
    own = without_defaults({"kind": kind}, {"kind": "energy"})
    return UNIT_RESPONSES.spec(own, {"activations": activations}, label=activations.label)


def responses_layout(n: int, units: int) -> Layout:
    """Return the layout for n samples at some number of units."""
    rows = min(MAX_ROWS, max(32, PARTITION_BYTES // (4 * units) // 32 * 32))
    return Layout(-(-n // rows), {"responses": rows_layout((n, units), "float32", ("sample", "unit"), rows)})


def count_units(split: Split, image: Tensor) -> tuple[int, ...]:
    """Return the number of units of each ReLU call up to a layer.

    Raises
    ------
    ValueError : there is not one, or the units of one are on an unknown axis
    """
    from tasks.splitting.relus import relu_layouts

    return tuple(layout.n_channels for layout in relu_layouts(split.trunk, image))


def units_of(activations: StageSpec, survey: Survey) -> tuple[int, ...]:
    """Return the number of units of each ReLU call, from the spec alone; an error names the config's key."""
    layer, how = activations.parameters["layer"], how_read(activations)

    def look(model: nn.Module, example: Tensor, images: Tensor) -> tuple[int, ...]:
        split, _ = probe(model, layer, example, images=images, **how)
        return count_units(split, example)

    try:
        return survey.look(activations, f"units {layer} {how}", look)
    except ValueError as error:
        raise ValueError(f"interpretation.interpreters.vebi: {error}") from error  # the survey names the network


def call_of_unit(layers: list[int]) -> NDArray[np.int64]:
    """Return the number of the ReLU call of each unit (M,), from the number of units of each call."""
    return np.repeat(np.arange(len(layers)), layers)


def read_images(activations: FinishedStage | Stage, spec: StageSpec, start: int, stop: int) -> Tensor:
    """Return the network's input for the samples start:stop of an activations stage."""
    at = np.arange(start, stop, dtype=np.int64)
    return read_positions(activations.store, spec, str(spec.parameters["split"]), at)


def _layout(store: Store, spec: StageSpec) -> Layout:
    import torch

    activations = spec.inputs["activations"]
    split = open_split(store, activations, torch.device("cpu"))
    n = open_finished(store, activations).summary["samples"]
    return responses_layout(n, sum(count_units(split, first_input(store, activations))))


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions."""
    import torch

    from tasks.interpreters.vebi import unit_responses
    from tasks.splitting.relus import relu_layouts, relu_maps

    stage, device = work.stage, choose_device(work.device)
    activations = stage.spec.inputs["activations"]
    finished, split = open_finished(stage.store, activations), open_split(stage.store, activations, device)
    size = batch_size(tuple(finished.summary["input"]), str(device))
    layouts = relu_layouts(split.trunk, first_input(stage.store, activations).to(device))
    kind: Any = stage.spec.parameters.get("kind", "energy")  # Any: one of three texts, checked with the config
    with stage.partition(number) as part:
        start, stop = part.span
        found = np.empty((stop - start, stage.layout.arrays["responses"].shape[1]), np.float32)
        for low in range(start, stop, size):
            high = min(low + size, stop)
            images = read_images(finished, activations, low, high).to(device)
            with torch.inference_mode():
                rows = unit_responses(relu_maps(split.trunk, images, layouts), kind)
            found[low - start : high - start] = rows.float().cpu().numpy()
        part.write("responses", found)
        part.numbers.update(measured(samples=stop - start))


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the number of units of each ReLU call."""
    import torch

    activations = stage.spec.inputs["activations"]
    split = open_split(stage.store, activations, torch.device("cpu"))
    return {"layers": list(count_units(split, first_input(stage.store, activations)))}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: the responses of a partition, and a forward pass that keeps the maps of all ReLUs."""
    activations = spec.inputs["activations"]
    shapes, layers = map_shapes(activations, survey), units_of(activations, survey)
    n = survey.data(activations.inputs["data"]).count(activations.parameters["split"])
    layout = responses_layout(n, sum(layers))
    rows, inputs = layout.arrays["responses"].rows, int(np.prod(shapes.inputs))
    forward = batch_size(shapes.inputs) * 4 * (3 * inputs + (6 + 4 * len(layers)) * shapes.largest)
    return Size(layout.n_bytes, 8 * rows * sum(layers) + forward)


UNIT_RESPONSES = Step("unit-responses", VERSION, _layout, _partition, _size, summary=_summary, network=True)
