"""How much the trainings of question 2 write and how much memory they need, from shapes alone."""

from collections.abc import Callable, Mapping

from storage.documents import Document
from storage.specs import StageSpec
from tasks.steps.common.survey import DataSurvey, HeadShapes, state_bytes
from tasks.steps.common.training import MEMORY_SAMPLES, training_steps
from tasks.steps.decomposition.gates import ROWS
from tasks.steps.decomposition.histogram import features_of

Sizes = tuple[int, int]  # bytes written, peak bytes
Surveys = Mapping[str, DataSurvey]
Heads = Mapping[str, HeadShapes]  # by the path of a penultimate stage


def _decomposed_training(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    """A checkpoint holds the weights and what the optimiser keeps of each, as in any training."""
    head, k2 = heads[features_of(spec.inputs["histogram"]).path], int(spec.parameters["k2"])
    if k2 > head.features:
        raise ValueError(f"decomposition.k2: {k2} of {head.features} features, which {spec.label} has")
    train, n_bytes = spec.place["train"], 4 * head.outputs * (3 * k2 + 1)  # weights, indices of 8 bytes, bias
    held = 4 * head.features * (head.outputs + 2 * _batch(train))
    if spec.parameters["scope"] == "network":
        n_bytes += state_bytes(spec.parameters["network"])
        held = 3 * _batch(train) * 4 * head.largest
    _, steps = training_steps(spec, surveys[spec.inputs["data"].path].summary)
    checkpoints = -(-steps // int(train["checkpoint_every"]))
    optimizer = train["optimizer"]
    kept = 3 if "betas" in optimizer else 2 if optimizer["momentum"] else 1
    return (kept * checkpoints + 1) * n_bytes, 2 * MEMORY_SAMPLES + (4 + 2 * kept) * n_bytes + held


def _gates(spec: StageSpec, surveys: Surveys, heads: Heads) -> Sizes:
    """The stage reads no features, so the largest of the run's networks stands for its own."""
    summary, split = surveys[spec.inputs["data"].path].summary, spec.parameters["split"]
    if split not in summary["splits"]:
        name = spec.inputs["data"].place["name"]
        raise ValueError(f"data.{name}: no split {split!r}; splits: {', '.join(summary['splits'])}")
    gates = max(head.features * head.outputs for head in heads.values())
    outputs, largest = (max(getattr(head, key) for head in heads.values()) for key in ("outputs", "largest"))
    written = 4 * gates + 8 * outputs * int(spec.parameters["k"])
    return written, MEMORY_SAMPLES + 6 * gates * 4 + ROWS * 6 * 4 * largest + state_bytes(spec.parameters["network"])


def _batch(train: Document) -> int:
    """Return the most samples in a batch, ghosts too, or in a measurement of the accuracy."""
    batches = train["batches"]
    return max(ROWS, int(batches.get("size", 1)) + int(batches.get("ghosts", 0)))


TRAINING_SIZES: dict[str, Callable[[StageSpec, Surveys, Heads], Sizes]] = {
    "decomposed-training": _decomposed_training,
    "gates": _gates,
}
