"""The snapshots stage: the weights of a training after a given step, bitwise; the training need not have ended."""

from fractions import Fraction

from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, find_many, open_finished, read_marker
from storage.stores import Store, StoreError
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.chain import same_environment
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of, training_steps
from tasks.steps.common.networks import WEIGHTS, choose_device, pack_state
from tasks.steps.common.segments import has_segment, open_so_far
from tasks.steps.common.survey import state_bytes
from tasks.steps.common.trainer import environment, load_training, open_trainer

VERSION = 1


def snapshot_specs(training: StageSpec, wanted: int | tuple[int, ...] | None) -> list[StageSpec]:
    """Return the specs of the snapshots of a training, in the order of their steps where they are evenly spaced.

    Parameters
    ----------
    training : spec of the training
    wanted : a number n, for snapshots after 1/n, 2/n, ... of all steps, or steps; step 0 is before the first update
    """
    if isinstance(wanted, int):
        parts = [Fraction(i, wanted) for i in range(1, wanted + 1)]
        return [_spec(training, {"part": [p.numerator, p.denominator]}, f"{p} of its steps") for p in parts]
    return [_spec(training, {"step": step}, f"step {step}") for step in wanted or ()]


def snapshot_step(spec: StageSpec, survey: Document) -> int:
    """Return the step of a snapshot: the number of updates before it.

    Parameters
    ----------
    survey : summary of the training set's manifest

    Raises
    ------
    ValueError : the training is shorter
    """
    _, total = training_steps(spec.inputs["training"], survey)
    if "part" in spec.parameters:
        return round(Fraction(*spec.parameters["part"]) * total)
    step = int(spec.parameters["step"])
    if step > total:
        label = spec.inputs["training"].label
        raise ValueError(f"train.snapshots: expected at most {total}, the steps of {label}, found step {step}")
    return step


def snapshot_ready(store: Store, spec: StageSpec) -> bool:
    """Return whether a training has come so far that a snapshot of it can be made, or is made."""
    training = spec.inputs["training"]
    data = training.inputs["data"]
    found = find_many(store, [spec.path, training.path, data.path])
    if spec.path in found or training.path in found:
        return True
    if data.path not in found:
        return False
    step, every = snapshot_step(spec, found[data.path].summary), training_of(training).checkpoint_every
    return has_segment(store, training, max(0, -(-step // every) - 1))


def snapshot_file(step: int) -> str:
    """Return the name of the file with the weights after `step` updates."""
    return f"snapshot-{step:08d}.safetensors"


def _spec(training: StageSpec, parameters: Document, where: str) -> StageSpec:
    """Return the spec of one snapshot."""
    return SNAPSHOTS.spec(parameters, {"training": training}, label=f"{training.label} {where}")


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Copy the weights from a checkpoint, or continue from the last checkpoint before the step."""
    from tasks.io.tensors import pack_tensors
    from tasks.recording.checkpoints import checkpoint_versions, checkpoint_weights

    stage = work.stage
    training = stage.spec.inputs["training"]
    finished = open_so_far(stage.store, training)
    survey = open_finished(stage.store, training.inputs["data"]).summary
    step, (_, total) = snapshot_step(stage.spec, survey), training_steps(training, survey)
    every = training_of(training).checkpoint_every
    with stage.partition(number) as part:
        if step == total:
            data = finished.read_file(WEIGHTS)
        elif step and step % every == 0 and _kept(finished, step // every - 1):
            whole, title = _checkpoint(finished, step // every - 1), training.title
            data = pack_tensors(checkpoint_weights(whole, title), checkpoint_versions(whole, title))
        else:
            data = _trained(work, finished, step)
        part.write_file(snapshot_file(step), data)
        part.numbers.update(measured(step=step))


def _checkpoint(finished: FinishedStage, number: int) -> bytes:
    """Return the checkpoint at the end of a segment."""
    record = read_marker(finished.store, finished.path, number)
    return finished.read_file(str(record["numbers"]["checkpoint"]))


def _kept(finished: FinishedStage, number: int) -> bool:
    """Return whether the checkpoint at the end of a segment is in the stage: a long replay archive drops some."""
    record = read_marker(finished.store, finished.path, number)
    return record["numbers"]["checkpoint"] in finished.note["files"]


def _trained(work: Work, finished: FinishedStage, stop: int) -> bytes:
    """Return the weights after `stop` updates, made from the last checkpoint before them in the same steps.

    Raises
    ------
    StoreError : the environment or a loss differs from the training's
    """
    training, device = work.stage.spec.inputs["training"], choose_device(work.device)
    every = training_of(training).checkpoint_every
    trainer = open_trainer(finished.store, training, device, MEMORY_SAMPLES)
    start = stop // every * every
    while start and not _kept(finished, start // every - 1):
        start -= every
    if start:
        load_training(trainer, _checkpoint(finished, start // every - 1))
    if stop > start:
        asked = [(finished.path, number) for number in range(start // every, -(-stop // every))]
        records = [read_marker(finished.store, *each)["numbers"] for each in asked]
        made, losses = records[0], [loss for numbers in records for loss in numbers["losses"]]
        remedy = f"choose a snapshot at a multiple of checkpoint_every, {every}"
        same_environment(training, made["environment"], environment(device), remedy)
        for step, (again, before) in enumerate(zip(trainer.run(start, stop), losses, strict=False), start):
            if again != before:
                raise StoreError(f"{training.title}: step {step}: expected loss {before!r}, found {again!r}")
    return pack_state(trainer.model)


def _summary(stage: Stage) -> Document:
    record = stage.marker(0)
    assert record is not None
    return {"step": record["numbers"]["step"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    training = spec.inputs["training"]
    try:
        snapshot_step(spec, survey.data(training.inputs["data"]).summary)
    except ValueError as error:
        raise ValueError(f"networks: {error}") from error
    weights = state_bytes(survey.blank(training))
    return Size(weights, 2 * MEMORY_SAMPLES + 10 * weights)


SNAPSHOTS = Step("snapshots", VERSION, _layout, _partition, _size, summary=_summary, network=True)
