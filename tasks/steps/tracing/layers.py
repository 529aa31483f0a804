"""Choose the traced layers of a training, in the order of the network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from configs.section import INDEX
from storage.specs import StageSpec
from tasks.engine.survey import Survey
from tasks.io.manifest import check_labels
from tasks.io.networks import build_model
from tasks.steps.common.manifest import data_of
from tasks.steps.common.recording import recorded_layers
from tasks.steps.common.trials import check_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.recording.sources import UpdateSource


def traced_layers(source: UpdateSource, spec: StageSpec) -> list[str]:
    """Return the names of the traced layers of a contributions stage.

    Raises
    ------
    ValueError : a layer that the archive does not hold
    """
    from tasks.recording.traced import holds

    asked = spec.place["layers"]
    if asked == "all":
        return list(source.layers)
    for layer in asked:
        if not holds(source, layer):
            raise ValueError(f"tracing.layers: expected recorded layers ({', '.join(source.layers)}), found {layer!r}")
    return list(asked)


def unit_of(name: str) -> tuple[str, int | None]:
    """Return layer and unit of the name of a traced layer or unit, such as fc:3; None for a whole layer."""
    layer, colon, unit = name.rpartition(":")
    return (layer, int(unit)) if colon and re.fullmatch(INDEX, unit) else (name, None)


def traced_names(source: UpdateSource, spec: StageSpec) -> list[str]:
    """Return the names of the traced layers of a contributions stage, each followed by its traced units.

    Raises
    ------
    ValueError : a layer that the archive does not hold
    """
    traced, units = traced_layers(source, spec), spec.place.get("units", ())
    order = [*traced, *(layer for unit in units if (layer := unit_of(unit)[0]) not in traced)]
    found = []
    for layer in dict.fromkeys(order):
        found += [layer] * (layer in traced) + [unit for unit in units if unit_of(unit)[0] == layer]
    return found


def in_depth_order(training: StageSpec, layers: Sequence[str]) -> list[str]:
    """Return names of layers in the order of the network's modules; unknown names are last."""
    import torch

    network = training.parameters["network"]
    try:
        with torch.device("meta"):
            model = build_model(network["model"], network["arguments"], 0)
    except ValueError:
        return list(layers)  # the plan reports what is wrong with the network
    depth = {name: index for index, (name, _) in enumerate(model.named_modules(remove_duplicate=False))}
    return sorted(layers, key=lambda name: depth_of(name, depth))


def depth_of(name: str, depth: Mapping[str, int]) -> int:
    """Return the place of a traced layer: that of the innermost module in its name, last without one."""
    words = name.partition("@")[0].split(".")
    found = (depth.get(".".join(words[:cut])) for cut in range(len(words), 0, -1))
    return next((place for place in found if place is not None), len(depth))


def layers_to_trace(spec: StageSpec, survey: Survey) -> list[str]:
    """Return the names of the layers and units for contributions, after a check of their calls.

    Raises
    ------
    ValueError : a layer is not recorded; its calls are not exactly one; its input is not one tensor; a layer does not
        have a unit; or the network does not know the labels of the queries
    """
    import torch

    from tasks.capture import capture_inputs
    from tasks.modules.naming import is_traced, traced_module, whole_layers

    training = spec.inputs["network"]
    kept, asked, blank = list(recorded_layers(training, survey)), spec.place["layers"], survey.blank(training)
    recorded = whole_layers(blank, kept)
    traced = list(recorded) if asked == "all" else list(asked)
    for layer in traced:
        if not is_traced(blank, kept, layer):
            raise ValueError(f"tracing.layers: expected recorded layers ({', '.join(recorded)}), found {layer!r}")
    units = list(spec.place.get("units", ()))
    named = [layer for unit in units if is_traced(blank, kept, layer := unit_of(unit)[0])]
    check_units(units, {layer: traced_module(blank, layer) for layer in [*recorded, *named]})
    traced = list(dict.fromkeys([*traced, *(unit_of(unit)[0] for unit in units)]))

    def look(model: nn.Module, example: Tensor, images: Tensor) -> int | str:
        try:
            capture_inputs(model, traced, example)
        except ValueError as error:
            return str(error)
        check_inputs(model, traced, images)
        with torch.inference_mode():
            return int(model(example.clone()).shape[1])

    n_outputs = survey.look(training, f"inputs of {traced}", look)
    if isinstance(n_outputs, str):
        name = training.place["network"]
        raise ValueError(f"tracing.layers: networks.{name}: {n_outputs}; name the layers to trace")
    queries = spec.inputs["queries"]
    found = survey.data(queries.inputs["data"])
    try:
        check_labels(
            np.array(found.split(queries.parameters["split"])["labels"], np.int64),
            n_outputs,
            found.name,
            data_of(queries.inputs["data"]),
        )
    except ValueError as error:
        raise ValueError(f"tracing.queries.data: {error}") from error
    return [*traced, *units]


def check_calls(training: StageSpec, survey: Survey, layer: str, key: str) -> None:
    """Raise ValueError unless a network calls a layer once, with one tensor; the message begins with `key`."""
    from tasks.capture import capture_inputs

    def look(model: nn.Module, example: Tensor, images: Tensor) -> str:
        calls = list[object]()
        handle = model.get_submodule(layer).register_forward_hook(lambda *given: calls.append(None))
        try:
            capture_inputs(model, [layer], example)
        except ValueError as error:
            return str(error)
        finally:
            handle.remove()
        return "" if len(calls) == 1 else f"layer {layer!r}: expected one call, found {len(calls)}"

    if problem := survey.look(training, f"calls of {layer}", look):
        raise ValueError(f"{key}: {problem}; name a unit of another layer")


def check_units(units: Sequence[str], layers: Mapping[str, nn.Module], key: str = "tracing.units") -> None:
    """Raise ValueError for units that layers do not have; the message begins with `key`."""
    from tasks.tracing.patches import Operation

    for unit in units:
        layer, index = unit.rpartition(":")[0], unit_of(unit)[1]
        if layer not in layers or ":" not in unit:
            raise ValueError(
                f"{key}: expected LAYER:INDEX with a recorded layer of {', '.join(layers)}, found {unit!r}"
            )
        module = layers[layer]
        outputs = Operation(module, tuple(module.get_parameter("weight").shape)).n_outputs
        if index is None or index >= outputs:
            raise ValueError(f"{key}: expected {layer}:0 to {layer}:{outputs - 1}, found {unit!r}")
