"""The parts of a layer's gamma by each step's own examples, in the contributions stage, where an archive knows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of
from tasks.steps.common.recording import archive_size, recorded_layers
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.queries import count_queries

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.modules.rows import Inputs
    from tasks.recording.sources import UpdateBlock, UpdateSource


class Target(Protocol):
    """What of a traced layer or unit is needed to split a block: its operation, final weights and the anchor of z."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def weight(self) -> Tensor: ...

    @property
    def anchor(self) -> Tensor | None: ...


def members_array(layer: str) -> str:
    """Return the name of the array with the parts of a layer's gamma by each step's examples."""
    return f"members.{layer}"


def splits(source: UpdateSource, spec: StageSpec, layer: str) -> bool:
    """Return whether gamma of a layer and its units is split by the examples' own gradients; a bias has no parts."""
    counts_bias = spec.place["bias"] and source.initial_bias(layer) is not None
    return spec.place["split"] == "example" and not counts_bias and source.splits(layer)


def split_block(
    block: UpdateBlock, target: Target, inputs: Inputs, members: NDArray[np.float32], sizes: list[int]
) -> str:
    """Write the part of each example of a block's steps, (steps, members, queries); NaN where they are not known.

    Parameters
    ----------
    sizes : number of examples of each step

    Returns
    -------
    why the block cannot be split, "" if it can
    """
    try:
        parts = block.per_example(target.module, target.weight, inputs, anchor=target.anchor)
    except NotImplementedError as error:
        members[:] = np.nan
        return str(error)
    for row, columns, size in zip(members, parts, sizes, strict=True):
        row[:size] = columns[:, :size].T.float().cpu().numpy()
    return ""


def known_parts(parts: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return (steps,) whether the parts (steps, members, queries) of a step's examples are known."""
    found: NDArray[np.bool_] = ~np.isnan(parts).all(axis=(1, 2))
    return found if parts[0].size else np.ones(len(parts), np.bool_)


def member_spread(store: Store, contributions: StageSpec, layer: str) -> dict[str, float]:
    """Return how far the parts of a batch's images lie from an equal split, NaN where they are not known.

    Returns
    -------
    member_spread : root of the summed squared deviations over the root of the summed squared parts, over all steps of
        several images, and queries
    member_against : share of the parts with the opposite sign of their batch's sum
    """
    stage, name = open_finished(store, contributions), members_array(layer)
    if name not in stage.layout.arrays:
        return {"member_spread": math.nan, "member_against": math.nan}
    source, rows = open_archive(store, contributions.inputs["network"]), stage.layout.arrays[name].rows
    squares = deviations = against = count = 0.0
    for start in range(0, source.steps, rows):
        stop = min(start + rows, source.steps)
        found = stage.read(name, start, stop).astype(np.float64)
        steps = zip(found, source.examples[start:stop], known_parts(found), strict=True)
        for parts in (part[: len(ids)] for part, ids, known in steps if known and len(ids) > 1 and part.any()):
            squares += float((parts**2).sum())
            deviations += float(((parts - parts.mean(axis=0)) ** 2).sum())
            against += float((parts * parts.sum(axis=0) < 0).sum())
            count += parts.size
    spread = math.sqrt(deviations / squares) if squares else math.nan
    return {"member_spread": spread, "member_against": against / count if count else math.nan}


def members_bytes(spec: StageSpec, survey: Survey, layers: list[str]) -> int:
    """Return the bytes of the parts in a step, at most."""
    from tasks.recording.archives import ARCHIVES

    training = spec.inputs["network"]
    if spec.place["split"] != "example" or not ARCHIVES[archive_size(training, survey)[0]].splits:
        return 0
    return 4 * training_of(training).batches.most * count_queries(spec.inputs["queries"], survey) * len(layers)


def gradients_bytes(spec: StageSpec, survey: Survey) -> int:
    """Return the bytes by example that a replay keeps of a step: what layers saw in all calls, and gradients of maps.

    The gradients of a module's calls are summed as they are made, so there are at most two sets of them.
    """
    from tasks.modules.composed import PieceModule
    from tasks.recording.calls import call_numbers
    from tasks.recording.layers import choose_layers

    training = spec.inputs["network"]
    if spec.place["split"] != "example" or archive_size(training, survey)[0] != "replay":
        return 0
    record = training_of(training).record
    layers = None if record is None else record.layers
    seen: int = survey.look(
        training,
        f"numbers in calls of {layers}",
        lambda model, example, inputs: call_numbers(
            model, choose_layers(model, layers), inputs if inputs.ndim == 2 else example
        ),
    )
    recorded = recorded_layers(training, survey).values()
    places = [place for one in recorded if isinstance(one, PieceModule) for place in one.places().values()]
    values: int = sum(getattr(module, name).numel() for _, module, name in places)
    return 4 * training_of(training).batches.most * (2 * values + seen)


def equal_line(spec: StageSpec, survey: Survey, layers: list[str]) -> str:
    """Return a line on the layers whose updates are split equally though the config asks for parts, "" for none."""
    from tasks.modules.naming import find_map
    from tasks.recording.pieces import drops

    training = spec.inputs["network"]
    if spec.place["split"] != "example":
        return ""
    kind, optimizer = archive_size(training, survey)[0], training_of(training).optimizer.kind
    owners = {layer: found for layer in layers if (found := find_map(survey.blank(training), layer)) is not None}
    if kind == "dense":
        chosen, why = layers, "a dense archive keeps whole updates"
    elif kind == "replay" and optimizer != "sgd":
        chosen, why = layers, f"{optimizer} is not linear in the gradient"
    elif kind == "replay":
        chosen, why = [layer for layer, found in owners.items() if drops(found.module)], "their dropout is not repeated"
    else:
        chosen, why = list(owners), f"a {kind} archive keeps whole updates of attention and recurrent layers"
    if not chosen:
        return ""
    which = "all layers" if len(chosen) == len(layers) else f"{len(chosen)} of {len(layers)} layers"
    return f"{spec.label}: each update of {which} is split equally over its examples, since {why}"
