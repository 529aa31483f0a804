"""A check of the smallest batch of a training: batch norm needs more than one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from configs.training import Training
from storage.specs import StageSpec
from tasks.engine.survey import Survey
from tasks.steps.common.courses import labels_of, open_batches, training_of
from tasks.training.batches import Positions

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH_NORM = "Expected more than 1 value per channel when training"  # torch's words
TRIED = 1000  # number of sizes in the search for one without a batch of 1


def check_smallest_batch(
    spec: StageSpec, survey: Survey, *, key: str = "", subsets: Sequence[Positions] | None = None
) -> None:
    """Raise ValueError where a batch of a training has one sample, and its network cannot be trained on one.

    Parameters
    ----------
    spec : any stage that trains a network
    key : config key of the training's settings; default: the key of the network's own training
    subsets : labels (m,) of each training set; default: the split

    Raises
    ------
    ValueError : names the key of the batches' size
    """
    train = training_of(spec)
    drawn = [labels_of(survey.data(spec.inputs["data"]).split(train.split))] if subsets is None else list(subsets)
    alone = next((labels for labels in drawn if _smallest(train, labels) == 1), None)
    if alone is None:
        return
    ghosts = train.batches.kind == "single-class" and train.batches.ghosts > 0
    reason = survey.look(spec, f"batch of 1, ghosts {ghosts}", lambda model, example, _: _fails(model, example, ghosts))
    if reason is None:
        return
    if train.batches.kind == "single-example":
        says = "kind: single-example makes batches of 1 sample"
        remedy = "take another kind, with a batches.size of 2 or more"
    else:
        says = f"size: {train.batches.size} leaves a batch of 1 of {_group(train, spec, alone)}"
        better = _better(train, drawn)
        remedy = "set it so that no batch has 1 sample" + (f", such as {better}" if better else "")
    place = key or f"networks.{spec.place['network']}.train"
    raise ValueError(f"{place}.batches.{says}, on which the network cannot be trained: {reason}; {remedy}")


def _smallest(train: Training, labels: Positions) -> int:
    """Return the number of examples in the smallest batch; 0 where there are none, which the stage's size reports."""
    try:
        return open_batches(train, labels, 0).smallest
    except ValueError:
        return 0


def _fails(model: nn.Module, example: Tensor, ghosts: bool) -> str | None:
    """Return the reason why a network cannot be trained on one example, None where it can."""
    import torch
    from torch import Tensor

    from tasks.training.ghost_norm import has_ghost_norm, with_ghost_norm

    if ghosts and has_ghost_norm(with_ghost_norm(model)):
        return None  # the ghosts are in the same batch
    try:
        with torch.inference_mode():
            output = model.train()(example.clone())
    except (ValueError, RuntimeError, LookupError) as error:
        text = " ".join(str(error).split())
        return "batch norm needs more than 1 value of a channel" if text.startswith(BATCH_NORM) else text
    finally:
        model.eval()
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        return "its output is not one row of logits"
    return None if torch.isfinite(output).all() else "its output is not finite"


def _better(train: Training, drawn: Sequence[Positions]) -> int | None:
    """Return the nearest size that leaves no batch of 1, None where there is none."""
    assert train.batches.kind != "single-example"
    size = train.batches.size
    for other in sorted(range(2, size + TRIED), key=lambda tried: (abs(tried - size), tried)):
        changed = train.model_copy(update={"batches": train.batches.model_copy(update={"size": other})})
        if all(_smallest(changed, labels) > 1 for labels in drawn):
            return other
    return None


def _group(train: Training, spec: StageSpec, labels: Positions) -> str:
    """Return words for the samples of which one batch has only one."""
    of = f"split {train.split!r}"
    if "share" in spec.parameters:
        of = f"a subset (tracing.evaluation.lds.share {spec.parameters['share']:g})"
    if train.batches.kind == "single-class":
        size = train.batches.size
        counts = zip(*np.unique(labels, return_counts=True), strict=True)
        label, count = next((label, count) for label, count in counts if count % size == 1 or size == 1)
        return f"the {count} samples of class {label} in {of}"
    return f"the {len(labels)} samples of {of}"
