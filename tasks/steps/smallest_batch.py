"""Whether a network can be trained on the smallest batch of its training: batch norm needs more than one value."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import AnyDataSet, Network
from storage.documents import Document
from storage.specs import StageSpec
from tasks.steps.survey import DataSurvey, open_network
from tasks.steps.tracing.retraining import subset
from tasks.steps.trainer import open_batches
from tasks.training.ghost_norm import has_ghost_norm, with_ghost_norm

BATCH_NORM = "Expected more than 1 value per channel when training"  # torch's words
TRIED = 1000  # sizes, to find one that leaves no sample alone

Counts = dict[int, int]  # samples by class


def check_smallest_batch(name: str, network: Network, spec: StageSpec, data: AnyDataSet, found: DataSurvey) -> None:
    """Raise where a batch of a training has one sample, and its network cannot be trained on one.

    Parameters
    ----------
    spec : of a training of the network: its own, that of its decomposed form, or on subsets

    Raises
    ------
    ValueError : names the key of the batches' size
    """
    train = spec.place["train"]
    if train["split"] not in found.summary["splits"]:
        return  # the size of the stage says so
    drawn = list(_drawn(spec, found.summary["splits"][train["split"]]))
    alone = next((counts for counts in drawn if _smallest(train, counts) == 1), None)
    if alone is None:
        return
    model, example, _ = open_network(network, data, found.of(train["split"]))
    if (reason := _fails_alone(model, example, train["batches"])) is None:
        return
    if (size := train["batches"].get("size")) is None:
        says = "kind: single-example makes batches of 1 sample"
        remedy = "take another kind, with a batches.size of 2 or more"
    else:
        says = f"size: {size} leaves a batch of 1 of {_group(train, spec, alone)}"
        better = _better(train, drawn)
        remedy = "set it so that no batch has 1 sample" + (f", such as {better}" if better else "")
    raise ValueError(f"{_place(name, spec)}.batches.{says}, on which the network cannot be trained: {reason}; {remedy}")


def _drawn(spec: StageSpec, split: Document) -> Iterator[Counts]:
    """Yield the samples by class of each set that a stage trains on."""
    if spec.stage != "retraining":
        yield dict(zip(split["labels"], split["counts"], strict=True))
        return
    labels = np.repeat(np.array(split["labels"], np.int64), split["counts"])
    for index in range(int(spec.parameters["subsets"])):
        found, counts = np.unique(labels[subset(spec, index, len(labels))], return_counts=True)
        yield dict(zip(found.tolist(), counts.tolist(), strict=True))


def _smallest(train: Document, counts: Counts) -> int:
    """Return the examples in the smallest batch, 0 where there are none: the size of the stage says why."""
    part = {"labels": list(counts), "counts": list(counts.values())}
    try:
        return open_batches(train, {"splits": {train["split"]: part}}, 0).smallest
    except ValueError:
        return 0


def _fails_alone(model: nn.Module, example: Tensor, batches: Document) -> str | None:
    """Return why a network cannot be trained on one example, None where it can."""
    if batches.get("ghosts") and has_ghost_norm(with_ghost_norm(model)):
        return None  # the ghosts are beside it
    try:
        with torch.inference_mode():
            output = model.train()(example)
    except (ValueError, RuntimeError, LookupError) as error:
        text = " ".join(str(error).split())
        return "batch norm needs more than 1 value of a channel" if text.startswith(BATCH_NORM) else text
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        return "its output is not one row of logits"
    return None if torch.isfinite(output).all() else "its output is not finite"


def _better(train: Document, drawn: list[Counts]) -> int | None:
    """Return the size nearest to the given one that leaves no sample alone, None where there is none."""
    size = int(train["batches"]["size"])
    for other in sorted(range(2, size + TRIED), key=lambda tried: (abs(tried - size), tried)):
        settings = {**train, "batches": {**train["batches"], "size": other}}
        if all(_smallest(settings, counts) > 1 for counts in drawn):
            return other
    return None


def _group(train: Document, spec: StageSpec, counts: Counts) -> str:
    """Name the samples that are cut into batches, one of which has a single one."""
    size, n = int(train["batches"]["size"]), sum(counts.values())
    of = f"split {train['split']!r}"
    if spec.stage == "retraining":
        of = f"a subset (tracing.evaluation.lds.share {spec.parameters['share']:g})"
    if train["batches"]["kind"] == "single-class":
        label = next(label for label, count in counts.items() if count % size == 1 or size == 1)
        return f"the {counts[label]} samples of class {label} in {of}"
    return f"the {n} samples of {of}"


def _place(name: str, spec: StageSpec) -> str:
    """Return the key of a training's settings."""
    return "decomposition.retraining.network" if spec.stage == "decomposed-training" else f"networks.{name}.train"
