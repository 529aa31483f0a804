"""How much the stages of question 4 write and how much memory they need, from shapes alone."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from configs.section import size_bytes
from storage.documents import Document
from storage.specs import StageSpec
from tasks.io.networks import build_model
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.sizes import check_budget, dense_bytes
from tasks.steps.common.recording import kept_steps
from tasks.steps.common.survey import DataSurvey
from tasks.steps.common.trainer import open_batches
from tasks.steps.common.training import MEMORY_SAMPLES, training_steps
from tasks.steps.tracing.influence import GRID, HISTOGRAM_BYTES, SUM_BYTES
from tasks.steps.tracing.projection import INPUT_BYTES
from tasks.steps.tracing.retraining import subset

UPDATES = 96 * 2**20  # bytes of updates in memory at a time, read or written: a chunk of a layer and its float copy
EXAMPLE = 64  # bytes of a ledger's row, and as much for each of its examples
THUMBNAIL = 3 * 96 * 96  # bytes of a query's picture at most

Sizes = tuple[int, int]  # bytes written, peak bytes
Surveys = Mapping[str, DataSurvey]


def archive_bytes(spec: StageSpec, summary: Document) -> int:
    """Return what a training's archive takes, 0 where it records nothing.

    Raises
    ------
    ValueError : a layer that cannot be recorded, or more than `archive_budget`
    """
    record = spec.place["train"]["record"]
    if record is None:
        return 0
    _, steps = training_steps(spec, summary)
    kept = kept_steps(spec.place["train"])
    count = steps if kept is None else sum(map(kept, range(steps)))
    _, parameters, _ = recorded_parameters(_layers(spec))
    needed = dense_bytes([p.shape for p in parameters], count)
    try:
        check_budget(needed, size_bytes(record["archive_budget"]))
    except ValueError as error:
        raise ValueError(f"networks: record of {spec.label}: {error}") from error
    split = summary["splits"][spec.place["train"]["split"]]
    seen: int = sum(split["counts"]) * int(spec.place["train"]["epochs"])
    return needed + EXAMPLE * (steps + seen)


def tracing_size(spec: StageSpec, surveys: Surveys) -> Sizes:
    """Return the size of a stage of question 4."""
    return _SIZES[spec.stage](spec, surveys)


def layers_to_trace(contributions: StageSpec) -> list[str]:
    """Return the names of the layers that contributions are asked of.

    Raises
    ------
    ValueError : one that is not recorded, or that cannot be
    """
    layers, asked = _layers(contributions.inputs["network"]), contributions.place["layers"]
    traced = list(layers) if asked == "all" else list(asked)
    for layer in traced:
        if layer not in layers:
            raise ValueError(f"tracing.layers: {layer!r} is not recorded; recorded: {', '.join(layers)}")
    return traced


def _layers(training: StageSpec) -> dict[str, nn.Module]:
    """Return the layers that a training records, of a model without storage."""
    network = training.parameters["network"]
    with torch.device("meta"):
        model = build_model(network["model"], network["arguments"], 0)
    try:
        return choose_layers(model, training.place["train"]["record"]["layers"])
    except ValueError as error:
        raise ValueError(f"networks: record of {training.label}: {error}") from error


def _training_of(spec: StageSpec, surveys: Surveys) -> tuple[StageSpec, int, int, int]:
    """Return the training of contributions, its steps, examples and classes."""
    training = spec.inputs["network"]
    summary = surveys[training.inputs["data"].path].summary
    split = summary["splits"][training.place["train"]["split"]]
    return training, training_steps(training, summary)[1], sum(split["counts"]), len(split["labels"])


def _count(queries: StageSpec, surveys: Surveys) -> int:
    """Return the number of queries; checks that there is their split."""
    summary, split = surveys[queries.inputs["data"].path].summary, queries.parameters["split"]
    if split not in summary["splits"]:
        name = queries.inputs["data"].place["name"]
        raise ValueError(f"data.{name}: no split {split!r}; splits: {', '.join(summary['splits'])}")
    available: int = sum(summary["splits"][split]["counts"])
    return min(int(queries.parameters["count"]), available)


def _queries(spec: StageSpec, surveys: Surveys) -> Sizes:
    n = _count(spec, surveys)
    return n * THUMBNAIL, n * THUMBNAIL * 8 + MEMORY_SAMPLES


def _contributions(spec: StageSpec, surveys: Surveys) -> Sizes:
    training, steps, _, _ = _training_of(spec, surveys)
    layers = _layers(training)
    traced = layers_to_trace(spec)
    n = _count(spec.inputs["queries"], surveys)
    row = 4 * n * (2 * len(traced) + 2)
    weights = 4 * sum(math.prod(p.shape) for p in recorded_parameters(layers)[1])
    return row * steps, row * int(training.place["train"]["checkpoint_every"]) + 3 * INPUT_BYTES + UPDATES + 6 * weights


def _influence(spec: StageSpec, surveys: Surveys) -> Sizes:
    contributions = spec.inputs["contributions"]
    training, steps, _, classes = _training_of(contributions, surveys)
    _check_window(spec, training, steps)
    n, layers = _count(contributions.inputs["queries"], surveys), len(_layers(training))
    every, epochs = int(training.place["train"]["checkpoint_every"]), int(training.place["train"]["epochs"])
    shown = int(spec.place["ridges"]["classes"])
    own = 48 * int(spec.place["k"]) + 8 * epochs * classes + 4 * shown * len(GRID)
    return layers * n * own, 4 * SUM_BYTES + HISTOGRAM_BYTES + 8 * n * (8 * every + epochs * classes)


def _mislabel(spec: StageSpec, surveys: Surveys) -> Sizes:
    training, steps, n, _ = _training_of(spec, surveys)
    _check_flips(training.inputs["data"], n)
    segments = -(-steps // int(training.place["train"]["checkpoint_every"]))
    largest = max(p.size for p in recorded_parameters(_layers(training))[1])
    return 8 * segments * n * (len(_layers(training)) + 1), 3 * INPUT_BYTES + UPDATES + MEMORY_SAMPLES + 48 * largest


def _check_window(influence: StageSpec, training: StageSpec, steps: int) -> None:
    """Raise where no step's examples would be credited with anything."""
    first, end = influence.place["window"] or (0, steps)
    kept = kept_steps(training.place["train"]) or (lambda _: True)
    if not any(map(kept, range(first, min(end, steps)))):
        raise ValueError(
            f"tracing.window: steps {first} to {end} hold none that {training.label} records; it has {steps} steps"
        )


def _check_flips(manifest: StageSpec, n: int) -> None:
    """Raise unless there are flipped and unflipped labels to tell apart."""
    name, share = manifest.place["name"], float(manifest.place["data"]["noise"]["share"])
    if not 0 < round(share * n) < n:
        raise ValueError(
            f"tracing.evaluation.mislabel: data.{name}.noise.share {share:g} flips {round(share * n)} of {n} labels; "
            "some must be flipped and some not"
        )


def _check_subsets(retraining: StageSpec, survey: DataSurvey) -> None:
    """Raise where a subset has too few samples, of a class or in all, for the training's batches."""
    train, seed = retraining.place["train"], int(retraining.parameters["seed"])
    split = survey.summary["splits"][train["split"]]
    labels = np.repeat(np.array(split["labels"], np.int64), split["counts"])
    for index in range(int(retraining.parameters["subsets"])):
        found, counts = np.unique(labels[subset(retraining, index, len(labels))], return_counts=True)
        part = {"labels": found.tolist(), "counts": counts.tolist()}
        try:
            open_batches(train, {"splits": {train["split"]: part}}, seed)
        except ValueError as error:
            share, size = retraining.parameters["share"], int(counts.sum())
            raise ValueError(
                f"tracing.evaluation.lds.share: {share:g} of {len(labels)} samples are {size}, too few for the batches "
                f"of {retraining.label}: {error}"
            ) from error


def _retraining(spec: StageSpec, surveys: Surveys) -> Sizes:
    _check_subsets(spec, surveys[spec.inputs["data"].path])
    count = int(spec.parameters["subsets"]) * int(spec.parameters["retrainings"])
    return 8 * count * _count(spec.inputs["queries"], surveys), 2 * MEMORY_SAMPLES


def _compared(spec: StageSpec, surveys: Surveys) -> Sizes:
    contributions = spec.inputs["contributions"]
    training, _, n, _ = _training_of(contributions, surveys)
    queries = _count(contributions.inputs["queries"], surveys)
    return 8 * queries * (len(_layers(training)) + 1), 8 * 8 * n * queries + MEMORY_SAMPLES


_SIZES: dict[str, Callable[[StageSpec, Surveys], Sizes]] = {
    "queries": _queries,
    "contributions": _contributions,
    "influence": _influence,
    "mislabel": _mislabel,
    "retraining": _retraining,
    "randomisation": _compared,
    "datamodelling": _compared,
}
