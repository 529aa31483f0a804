"""The neurons of a layer that are traced, each with the unit of a recorded operation that gives it, and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_steps
from tasks.steps.common.networks import load_network
from tasks.steps.common.recording import recorded_layers
from tasks.steps.common.replays import open_archive
from tasks.steps.common.trials import example_images
from tasks.steps.concepts.exemplars import choose_neurons
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.responses import read_pooled

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Traced:
    """The traced neurons of a layer.

    Attributes
    ----------
    operation : name of the recorded operation with a unit for each neuron, "" where there is none
    neurons : (k,) rising
    positions : (k, m) of each neuron's most activating probing images, most activating first
    left_out : interpretable neurons that are not traced
    why : why nothing is traced, "" where something is
    """

    operation: str
    neurons: NDArray[np.int64]
    positions: NDArray[np.int64]
    left_out: int = 0
    why: str = ""

    @property
    def names(self) -> list[str]:
        """The units, as LAYER:INDEX."""
        return [f"{self.operation}:{neuron}" for neuron in self.neurons.tolist()]


def planned_operation(spec: StageSpec, survey: Survey) -> tuple[str, int]:
    """Return the operation of a stage's neurons in a plan, and its input's values per image.

    The network of a plan may not be trained.

    Raises
    ------
    ValueError : the layer does not have one, its updates are not recorded, or the last snapshot is not the end
    """
    from torch import Tensor

    from tasks.capture import capture_inputs
    from tasks.splitting.channel_sources import channel_operation
    from tasks.splitting.outputs import find_layouts

    layer, training = str(spec.parameters["layer"]), spec.inputs["network"]
    known, layout = list(recorded_layers(training, survey)), dict(spec.place["layout"])
    if (snapshot := last_snapshot(spec)) is not None and "step" in snapshot.parameters:
        _, steps = training_steps(training, survey.data(training.inputs["data"]).summary)
        check_end(int(snapshot.parameters["step"]), steps)

    def look(model: nn.Module, example: torch.Tensor, images: torch.Tensor) -> tuple[str, int, str]:
        try:
            found = find_layouts(model, [layer], example, layout)[layer]
            operation = channel_operation(model, layer, images, found, known)
        except ValueError as error:
            return "", 0, str(error)
        given = capture_inputs(model, [operation], example)[operation]
        return operation, (given if isinstance(given, Tensor) else given.values).numel(), ""

    operation, values, why = survey.look(spec, f"operation of {layer} among {known} {sorted(layout.items())}", look)
    if why:
        raise ValueError(why)
    return operation, values


def last_snapshot(spec: StageSpec) -> StageSpec | None:
    """Return the snapshot in which the neurons were found, None for the training's end."""
    return spec.inputs["responses"].inputs.get("snapshot")


def check_end(step: int, steps: int) -> None:
    """Raise ValueError unless a snapshot is that of the training's end: updates lead to its weights, not to others."""
    if step != steps:
        raise ValueError(
            f"the last snapshot: expected one at the end of the training, step {steps}, found step {step}; add it to "
            "`snapshots`"
        )


def traced_units(store: Store, spec: StageSpec, device: torch.device) -> Traced:
    """Return the traced neurons of a stage: the interpretable ones of the last snapshot, spread over the words."""
    from tasks.splitting.channel_sources import channel_operation
    from tasks.splitting.outputs import find_layouts

    nothing = np.empty(0, np.int64)
    layer, source = str(spec.parameters["layer"]), open_archive(store, spec.inputs["network"])
    model, images = load_network(store, spec, device), example_images(store, spec).to(device)
    try:
        if (snapshot := last_snapshot(spec)) is not None:
            check_end(int(open_finished(store, snapshot).summary["step"]), source.steps)
        layout = find_layouts(model, [layer], images[:1], spec.place["layout"])[layer]
        operation = channel_operation(model, layer, images, layout, source.layers)
    except ValueError as error:
        return Traced("", nothing, nothing.reshape(0, 0), why=str(error))
    chosen, left_out = chosen_neurons(
        [
            read_neurons(open_finished(store, given))
            for role, given in spec.inputs.items()
            if role.startswith("neurons")
        ],
        int(spec.parameters["neurons"]),
    )
    pooled = read_pooled(open_finished(store, spec.inputs["responses"]), layer)[:, chosen].T
    top = np.argsort(-pooled, axis=1, kind="stable")[:, : int(spec.parameters["images"])]
    why = "" if len(chosen) else f"layer {layer!r}: no neuron is interpretable at the last snapshot"
    return Traced(operation, chosen, top, left_out, why)


def chosen_neurons(tables: Sequence[pd.DataFrame], count: int) -> tuple[NDArray[np.int64], int]:
    """Return the neurons to trace, rising, and the number of interpretable ones that are left out.

    Parameters
    ----------
    tables : the words of each neuron, as each detector sees them
    count : number of neurons; detectors take turns, and each spreads its neurons over the words
    """
    orders = []
    for table in tables:
        best = table[(table["rank"] == 0) & table["interpretable"]]
        orders.append(choose_neurons(best, len(best), ()).tolist())
    in_turn = dict.fromkeys(number for number in chain(*zip_longest(*orders)) if number is not None)
    return np.array(sorted(list(in_turn)[:count]), np.int64), max(0, len(in_turn) - count)
