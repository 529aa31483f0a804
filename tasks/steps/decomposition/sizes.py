"""How much the stages of question 2 write and how much memory they need, from shapes alone.

A function raises ValueError, which names the config's key, where more features are asked for than a head has.
"""

from collections.abc import Callable, Mapping

from storage.documents import Document
from storage.specs import StageSpec
from tasks.engine.life import MOST_TOGETHER
from tasks.steps.common.activations import MAX_ROWS, batch_size
from tasks.steps.common.survey import DataSurvey, HeadShapes
from tasks.steps.decomposition.histogram import features_of
from tasks.steps.decomposition.partials import CHUNK_VALUES, rows_per_range
from tasks.steps.decomposition.scores import GATES

DIGITS = 8  # arrays of 64 bits that one exact sum may take
THUMBNAIL = 96 * 96  # pixels of a picture at most

Sizes = tuple[int, int]  # bytes written, peak bytes
Surveys = Mapping[str, DataSurvey]
Heads = Mapping[str, HeadShapes]  # by the path of a penultimate stage


def _count(features: StageSpec, surveys: Surveys) -> int:
    """Return the number of samples of a penultimate stage."""
    return sum(_split(features, surveys)["counts"])


def _split(features: StageSpec, surveys: Surveys) -> Document:
    """Return the survey of a penultimate stage's split; checks that there is one."""
    data, split = features.inputs["data"], features.parameters["split"]
    splits: Document = surveys[data.path].summary["splits"]
    if split not in splits:
        raise ValueError(f"data.{data.place['name']}: no split {split!r}; splits: {', '.join(splits)}")
    found: Document = splits[split]
    return found


def _penultimate(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    n, head = _count(spec, surveys), heads[spec.path]
    row = 4 * (head.features + head.outputs) + 32
    sample = 4 * head.inputs[0] * head.inputs[1] * head.inputs[2]
    return n * row, MAX_ROWS * row + batch_size(head.inputs) * (3 * sample + 6 * 4 * head.largest)


def _strongest(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    features = spec.inputs["features"]
    n, head = _count(features, surveys), heads[features.path]
    k1 = spec.parameters["k1"]
    if isinstance(k1, int) and k1 > head.features:
        raise ValueError(f"decomposition.k1: {k1} of {head.features} features, which {features.label} has")
    ranges, table = -(-n // rows_per_range(head.features)), 8 * head.features * head.outputs
    present = min(head.outputs, len(_split(features, surveys)["labels"]))
    one = 8 * head.features * present * (DIGITS + 1)  # the rest is zeros, which pack to nothing
    return one + ranges * table // 100, 12 * 8 * CHUNK_VALUES + table * (MOST_TOGETHER + 3 * DIGITS)


def _histogram(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    head = heads[features_of(spec).path]
    table = 8 * head.features * head.outputs
    return 4 * table, table * (8 + 4 * DIGITS)


def _chosen(spec: StageSpec, heads: Heads, key: str) -> tuple[HeadShapes, int]:
    """Return the head of a stage's features and how many it keeps, which must be there."""
    features = spec.inputs["features"]
    head, k = heads[features.path], int(spec.parameters.get(key, 1))
    if k > head.features:
        raise ValueError(f"decomposition.k2: {k} of {head.features} features, which {features.label} has")
    return head, k


def _scores(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    head, k = _chosen(spec, heads, "k")
    if spec.parameters["method"] == GATES and head.channels != head.features:
        raise ValueError(
            f"networks: train.gates of {spec.inputs['sets'].label}: {head.channels} channels, but the head has "
            f"{head.features} features; gates tell of features only where each feature is the mean of one channel"
        )
    draws, ranges = int(spec.parameters.get("draws", 1)), _ranges(spec, surveys, heads)
    table = 8 * head.features * head.outputs
    return 8 * ranges * head.outputs * (2 * draws + 1), 12 * 4 * CHUNK_VALUES + 4 * table + _layers(head, k, draws)


def _layers(head: HeadShapes, k: int, draws: int) -> int:
    """Return the bytes of decomposed layers that are held at a time."""
    return 12 * head.outputs * k * (draws + MOST_TOGETHER)


def _ranges(spec: StageSpec, surveys: Surveys, heads: Heads) -> int:
    """Return the partitions of a stage over features."""
    features = spec.inputs["features"]
    return -(-_count(features, surveys) // rows_per_range(heads[features.path].features))


def _coverage(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    head, _ = _chosen(spec, heads, "k2")
    written = 8 * head.outputs * 3 * (DIGITS + 1) * _ranges(spec, surveys, heads)
    return written, 12 * 8 * CHUNK_VALUES + 3 * 8 * head.features * head.outputs


def _ablation(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    head, _ = _chosen(spec, heads, "k2")
    written = 8 * 3 * int(spec.parameters["draws"]) * _ranges(spec, surveys, heads)
    masks = (3 * MOST_TOGETHER + 8) * head.features * head.outputs
    return written, 8 * 8 * CHUNK_VALUES + masks


def _cost(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    head, _ = _chosen(spec, heads, "k2")
    return 0, 16 * head.features * head.outputs + 6 * 4 * head.largest


def _gallery(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    head, _ = _chosen(spec, heads, "k2")
    pixels = int(spec.parameters["count"]) * THUMBNAIL
    sample = 4 * head.inputs[0] * head.inputs[1] * head.inputs[2]
    return pixels * (3 + 12), pixels * 4 * 20 + int(spec.parameters["count"]) * 3 * sample + 6 * 4 * head.largest


DECOMPOSITION_SIZES: dict[str, Callable[[StageSpec, Surveys, Heads], Sizes]] = {
    "penultimate": _penultimate,
    "strongest": _strongest,
    "histogram": _histogram,
    "head-scores": _scores,
    "coverage": _coverage,
    "ablation": _ablation,
    "head-cost": _cost,
    "decomposition-gallery": _gallery,
}
