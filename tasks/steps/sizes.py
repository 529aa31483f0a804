"""How much a run will write and how much memory its stages need, from shapes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import Config
from storage.layouts import ArrayLayout
from storage.specs import StageSpec
from storage.stores import Store
from tasks.clusters import check_cluster
from tasks.interpreters import INTERPRETERS
from tasks.io.manifest import check_labels
from tasks.rejoining import ClusterError
from tasks.steps import evaluation
from tasks.steps.activations import MAX_BATCH, Shapes, activations_layout, peak_bytes
from tasks.steps.decomposition.sizes import DECOMPOSITION_SIZES
from tasks.steps.decomposition.sizes_training import TRAINING_SIZES
from tasks.steps.layers import layers_layout
from tasks.steps.life import MOST_TOGETHER
from tasks.steps.manifest import data_of
from tasks.steps.networks import check_device
from tasks.steps.smallest_batch import check_smallest_batch
from tasks.steps.snapshots import snapshot_step
from tasks.steps.survey import (
    DataSurvey,
    HeadShapes,
    state_bytes,
    survey_data,
    survey_head,
    survey_layers,
    survey_network,
    survey_traced,
    survey_training,
)
from tasks.steps.tracing.sizes import UPDATES, archive_bytes, layers_to_trace, tracing_size
from tasks.steps.training import MEMORY_SAMPLES, training_steps

TRAINS = ("training", "decomposed-training", "retraining")  # stages that train a network
LIBRARIES = 1100 * 10**6  # bytes of a worker before any data: torch, NumPy, Zarr
ROW = 120  # bytes of a manifest row


@dataclass(frozen=True)
class Size:
    """Bytes that a stage writes (before compression), the peak memory of one of its partitions, what to say of it."""

    written: int
    peak: int
    note: str = ""


def estimate(
    config: Config, store: Store | None, stages: Sequence[StageSpec], names: Mapping[str, str]
) -> dict[str, Size]:
    """Return the size of every stage, by path.

    Parameters
    ----------
    names : the network's name by the path of its training and activations stages

    Raises
    ------
    ValueError : data or networks that cannot be used, or do not fit each other; names the config's key
    """
    check_device(config.cluster)
    try:
        check_cluster(config.cluster)
    except ClusterError as error:
        raise ValueError(str(error)) from error
    surveys = {spec.path: survey_data(store, spec) for spec in stages if spec.stage == "manifest"}
    shapes: dict[str, Shapes] = {}
    for path, spec in ((s.path, s) for s in stages if s.stage == "activations"):
        _check_split(spec, surveys[spec.inputs["data"].path])
        known = canonical_network(spec)
        if known not in shapes:
            data, network = data_of(spec.inputs["data"]), config.networks[names[path]]
            layer, layout = spec.parameters["layer"], spec.parameters.get("layout")
            shapes[known] = survey_network(names[path], network, layer, data, _surveyed(spec, surveys), layout)
    for spec in (spec for spec in stages if spec.stage == "training" or spec.parameters.get("scope") == "network"):
        network, manifest = config.networks[names[spec.path]], spec.inputs["data"]
        found = surveys[manifest.path].of(spec.place["train"]["split"])
        survey_training(names[spec.path], network, data_of(manifest), found)
    for spec in (s for s in stages if s.stage in TRAINS and s.parameters.get("scope") != "head"):
        network, manifest = config.networks[names[spec.path]], spec.inputs["data"]
        check_smallest_batch(names[spec.path], network, spec, data_of(manifest), surveys[manifest.path])
    _check_traces(config, stages, names, surveys)
    heads = {
        spec.path: survey_head(name, config.networks[name], data_of(spec.inputs["data"]), _surveyed(spec, surveys))
        for spec, name in ((s, names[s.path]) for s in stages if s.stage == "penultimate")
    }
    layers = {spec.path: _layers(config, spec, names, surveys) for spec in stages if spec.stage == "layers"}
    return {spec.path: layers.get(spec.path) or _size(spec, surveys, shapes, heads) for spec in stages}


def canonical_network(spec: StageSpec) -> str:
    """Return what tells the network and layer of an activations stage apart, whatever its seed and split."""
    layer = spec.parameters["layer"], spec.parameters.get("layout")
    return repr((spec.parameters["network"], layer, spec.inputs["data"].key, dict(spec.digests)))


def _check_traces(
    config: Config, stages: Sequence[StageSpec], names: Mapping[str, str], surveys: Mapping[str, DataSurvey]
) -> None:
    """Raise where layers that are traced cannot be, or queries have labels that the network does not know."""
    outputs: dict[str, int] = {}
    for spec in (spec for spec in stages if spec.stage == "contributions"):
        name, manifest, queries = names[spec.path], spec.inputs["network"].inputs["data"], spec.inputs["queries"]
        if name not in outputs:
            split = spec.inputs["network"].place["train"]["split"]
            layers, found = layers_to_trace(spec), surveys[manifest.path].of(split)
            outputs[name] = survey_traced(name, config.networks[name], layers, data_of(manifest), found)
        asked = surveys[queries.inputs["data"].path]
        labels = asked.summary["splits"].get(queries.parameters["split"], {"labels": []})["labels"]
        try:
            check_labels(np.array(labels, np.int64), outputs[name], asked.name, data_of(queries.inputs["data"]))
        except ValueError as error:
            raise ValueError(f"tracing.queries.data: {error}") from error


def _layers(config: Config, spec: StageSpec, names: Mapping[str, str], surveys: Mapping[str, DataSurvey]) -> Size:
    """Return the size of a stage of named layers, after running one sample."""
    manifest = spec.inputs["data"]
    found = surveys[manifest.path]
    _check_split(spec, found)
    network, name = config.networks[names[spec.path]], names[spec.path]
    layouts = survey_layers(name, network, dict(spec.place), data_of(manifest), _surveyed(spec, surveys))
    layout = layers_layout(sum(found.summary["splits"][spec.parameters["split"]]["counts"]), layouts, dict(spec.place))
    row = 4 * sum(int(np.prod(one.shape)) for one in layouts.values())
    rows = next(iter(layout.arrays.values())).rows
    return Size(sum(map(_bytes, layout.arrays.values())), row * (2 * rows + 4 * MAX_BATCH))


def _surveyed(spec: StageSpec, surveys: Mapping[str, DataSurvey]) -> DataSurvey:
    """Return the survey of a stage's data, with the samples of its split to try the network on."""
    return surveys[spec.inputs["data"].path].of(spec.parameters["split"])


def _check_split(spec: StageSpec, found: DataSurvey) -> None:
    """Raise unless the data set has the split that a stage reads."""
    split, known = spec.parameters["split"], found.summary["splits"]
    if split not in known:
        name = spec.inputs["data"].place["name"]
        raise ValueError(f"data.{name}: no split {split!r}; splits: {', '.join(known)}")


def _size(
    spec: StageSpec,
    surveys: Mapping[str, DataSurvey],
    shapes: Mapping[str, Shapes],
    heads: Mapping[str, HeadShapes],
) -> Size:
    """Return the size of one stage."""
    if spec.stage in _SIZES:
        return _SIZES[spec.stage](spec, surveys, shapes)
    if spec.stage in (few := {**DECOMPOSITION_SIZES, **TRAINING_SIZES}):
        return Size(*few[spec.stage](spec, surveys, heads))
    return Size(*tracing_size(spec, surveys))


def _manifest(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    found = surveys[spec.path]
    rows = sum(sum(split["counts"]) for split in found.summary["splits"].values())
    left_out = found.summary.get("left_out")
    return Size(rows * ROW, rows * ROW * 4, f"data.{found.name}: {left_out}" if left_out else "")


def _training(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    """A checkpoint is the weights, about 4 bytes each; models here are built anyway when the plan is checked."""
    summary = surveys[spec.inputs["data"].path].summary
    train = spec.place["train"]
    for split in (train["split"], train["evaluate"]):
        if split not in summary["splits"]:
            name = spec.inputs["data"].place["name"]
            raise ValueError(f"data.{name}: no split {split!r}; splits: {', '.join(summary['splits'])}")
    _, steps = training_steps(spec, summary)
    checkpoints = -(-steps // int(train["checkpoint_every"]))
    weights = state_bytes(spec.parameters["network"])
    archive = archive_bytes(spec, summary)
    writing = UPDATES + 8 * weights if archive else 0
    optimizer = train["optimizer"]  # a checkpoint holds the weights, and its velocity or two moments of each
    kept = 3 if "betas" in optimizer else 2 if optimizer["momentum"] else 1
    return Size((kept * checkpoints + 1) * weights + archive, 2 * MEMORY_SAMPLES + (4 + 2 * kept) * weights + writing)


def _activations(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    found = shapes[canonical_network(spec)]
    n = sum(surveys[spec.inputs["data"].path].summary["splits"][spec.parameters["split"]]["counts"])
    layout = activations_layout(n, found, spec.parameters["dtype"])
    return Size(sum(map(_bytes, layout.arrays.values())), peak_bytes(found, layout))


def _bytes(array: ArrayLayout) -> int:
    """Return the bytes of a whole array before compression."""
    return int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize


def _classes(spec: StageSpec, surveys: Mapping[str, DataSurvey]) -> tuple[int, int]:
    """Return the number of classes of an activations stage and the samples of the largest."""
    counts = surveys[spec.inputs["data"].path].summary["splits"][spec.parameters["split"]]["counts"]
    return len(counts), max(counts)


def _selection(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    activations = spec.inputs["activations"]
    n_classes, longest = _classes(activations, surveys)
    return Size(8 * n_classes * longest, longest * shapes[canonical_network(activations)].maps[0] * 24)


def _features(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    """Reads the largest class's maps and keeps a share; the interpreter may take as much again."""
    activations = spec.inputs["activations"]
    n_classes, longest = _classes(activations, surveys)
    maps = shapes[canonical_network(activations)].maps
    written = 4 * n_classes * _feature_values(spec, shapes[canonical_network(activations)])
    return Size(written, 4 * longest * int(np.prod(maps)) * 3)


def _feature_values(spec: StageSpec, found: Shapes) -> int:
    """Return the numbers that one class's features take."""
    parameters = {k: v for k, v in spec.parameters.items() if k not in ("interpreter", "seed")}
    arrays = INTERPRETERS[spec.parameters["interpreter"]].shapes(found.maps[0], **parameters).values()
    return sum(int(np.prod(shape)) for shape in arrays)


def _evaluation(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    activations = spec.inputs["activations"]
    n_classes, longest = _classes(activations, surveys)
    found = shapes[canonical_network(activations)]
    chunk = min(evaluation.CHUNK_VALUES, longest * int(np.prod(found.maps)))
    rows = min(evaluation.CHUNK_ROWS, longest * int(np.prod(found.maps[1:])))
    columns = (MOST_TOGETHER + 1) * max(1, _feature_values(spec.inputs["features"], found) // found.maps[0])
    kept = 4 * (MOST_TOGETHER + 2) * longest * found.logits
    return Size(8 * n_classes * len(evaluation.MEASURES), 4 * 8 * chunk + 4 * 8 * rows * columns + kept)


def _gallery(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    found, count = shapes[canonical_network(spec.inputs["activations"])], int(spec.parameters["count"])
    if found.in_line:
        raise ValueError(
            f"interpretation.gallery: expected 0 for a layer whose positions are not rows and columns, found {count}; "
            "set it to 0, or name a layer of maps"
        )
    pixels = count * found.inputs[-1] ** 2
    return Size(pixels * (3 + len(spec.parameters["titles"])), pixels * 4 * 20)


def _snapshots(spec: StageSpec, surveys: Mapping[str, DataSurvey], shapes: Mapping[str, Shapes]) -> Size:
    training = spec.inputs["training"]
    try:
        snapshot_step(spec, surveys[training.inputs["data"].path].summary)
    except ValueError as error:
        raise ValueError(f"networks: {error}") from error
    weights = state_bytes(training.parameters["network"])
    return Size(weights, 2 * MEMORY_SAMPLES + 10 * weights)


_SIZES = {
    "manifest": _manifest,
    "training": _training,
    "snapshots": _snapshots,
    "activations": _activations,
    "selection": _selection,
    "features": _features,
    "evaluation": _evaluation,
    "gallery": _gallery,
}
