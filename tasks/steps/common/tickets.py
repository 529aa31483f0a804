"""The ticket stage: the weights that a pruned network starts from, early weights of its first training with masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from storage.tensors import decode_tensors
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import WEIGHTS, choose_device, load_packed, pack_state, stage_weights
from tasks.steps.common.pruning import read_masks
from tasks.steps.common.samples import read_positions
from tasks.steps.common.survey import state_bytes
from tasks.steps.common.trainer import set_deterministic

if TYPE_CHECKING:
    import torch

VERSION = 1
ROWS = 256  # images in a batch of batch norm's statistics


def ticket_spec(snapshot: StageSpec, pruning: StageSpec) -> StageSpec:
    """Return the spec of the start of a pruned network, with batch norm as it was at that step.

    Parameters
    ----------
    snapshot : weights of the chain's first training after the step to rewind to
    pruning : masks of the weights that remain
    """
    return TICKETS.spec({}, {"pruning": pruning, "snapshot": snapshot}, label=f"start of {pruning.label}")


def estimated_spec(
    snapshot: StageSpec, pruning: StageSpec | None, network: Document, manifest: StageSpec, split: str | None
) -> StageSpec:
    """Return the spec of a start whose batch norm has the statistics of given images.

    Parameters
    ----------
    snapshot, pruning : as for `ticket_spec`; None for the start of the first training, without masks
    network : parameters of the network with the preprocessing of the images
    manifest, split : the images, None for all splits
    """
    masks = {} if pruning is None else {"pruning": pruning}
    label = f"start of {snapshot.label if pruning is None else pruning.label}, batch norm of {manifest.label}"
    parameters = {"network": network, "split": split}
    return TICKETS.spec(parameters, {**masks, "snapshot": snapshot, "data": manifest}, label=label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Mask the weights; where there are images, estimate batch norm's statistics on them."""
    from tasks.io.tensors import pack_tensors, unpack_tensors
    from tasks.training.lottery import masked

    stage, spec = work.stage, work.stage.spec
    data = stage_weights(stage.store, spec.inputs["snapshot"])
    masks = read_masks(stage.store, spec.inputs["pruning"]) if "pruning" in spec.inputs else {}
    found = pack_tensors(masked(unpack_tensors(data), masks), decode_tensors(data, WEIGHTS)[1])
    if "data" in spec.inputs:
        found = _estimated(stage, found, choose_device(work.device))
    with stage.partition(number) as part:
        part.write_file(WEIGHTS, found)
        part.numbers.update(measured())


def _estimated(stage: Stage, data: bytes, device: torch.device) -> bytes:
    """Return weights with the statistics of batch norm over the images of a stage."""
    from tasks.io.networks import build_model
    from tasks.training.lottery import estimate_statistics

    set_deterministic(device)
    network = stage.spec.parameters["network"]
    model = build_model(network["model"], network["arguments"], 0)
    load_packed(model, data)
    estimate_statistics(model.eval().to(device), _batches(stage, device))
    return pack_state(model)


def _batches(stage: Stage, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield all images in batches whose sizes differ by at most one."""
    spec = stage.spec
    split = spec.parameters["split"]
    n = len(positions(stage.store, spec.inputs["data"].path, split))
    for at in np.array_split(np.arange(n), -(-n // ROWS)):
        yield read_positions(stage.store, spec, split, at).to(device)


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size; images are read in batches."""
    weights = state_bytes(survey.blank(spec.inputs["snapshot"].inputs["training"]))
    if "data" not in spec.inputs:
        return Size(weights, 4 * weights)

    def largest(model: torch.nn.Module, example: torch.Tensor, images: torch.Tensor) -> int:
        from tasks.splitting.outputs import largest_output

        return largest_output(model, example)

    survey.data(spec.inputs["data"]).split(spec.parameters["split"])
    values = survey.look(spec, "largest output", largest)
    return Size(weights, 4 * weights + 4 * ROWS * 4 * values)


TICKETS = Step("ticket", VERSION, _layout, _partition, _size, network=True)
