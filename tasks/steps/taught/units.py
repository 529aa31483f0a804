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
from tasks.steps.common.networks import load_network
from tasks.steps.common.recording import recorded_layers
from tasks.steps.common.replays import open_archive
from tasks.steps.common.trials import example_images
from tasks.steps.concepts.exemplars import choose_neurons
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.responses import read_pooled

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


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


def planned_operation(spec: StageSpec, survey: Survey) -> str:
    """Return the operation of a stage's neurons in a plan, from a network that may not be trained.

    Raises
    ------
    ValueError : the layer does not have one, or its updates are not recorded
    """
    from tasks.splitting.channel_sources import channel_operation
    from tasks.splitting.outputs import find_layouts

    layer, training = str(spec.parameters["layer"]), spec.inputs["network"]
    known, layout = list(recorded_layers(training, survey)), dict(spec.place["layout"])

    def look(model: nn.Module, example: Tensor, images: Tensor) -> tuple[str, str]:
        try:
            found = find_layouts(model, [layer], example, layout)[layer]
            return channel_operation(model, layer, images, found, known), ""
        except ValueError as error:
            return "", str(error)

    operation, why = survey.look(spec, f"operation of {layer} among {known} {sorted(layout.items())}", look)
    if why:
        raise ValueError(why)
    return operation


def traced_units(store: Store, spec: StageSpec, device: torch.device) -> Traced:
    """Return the traced neurons of a stage: the interpretable ones of the last snapshot, spread over the words."""
    from tasks.splitting.channel_sources import channel_operation
    from tasks.splitting.outputs import find_layouts

    nothing = np.empty(0, np.int64)
    layer, source = str(spec.parameters["layer"]), open_archive(store, spec.inputs["network"])
    model, images = load_network(store, spec, device), example_images(store, spec).to(device)
    try:
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
