"""The training stage: one long chain of segments, each from its predecessor's checkpoint, resumed bitwise.

A kind of training says by an `Opener` what is trained on what; the chain is the same for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from configs.schema import Network
from configs.section import Section
from configs.training import Training
from storage.documents import Document, digest
from storage.layouts import Layout
from storage.partitions import Partition
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store, StoreError
from storage.updates.archives import keep_chain, sweep_files
from tasks.io.tensors import pack_tensors
from tasks.recording.environment import environment_difference
from tasks.steps.content import compare_content, content_file
from tasks.steps.fetching import open_fetch, read_content
from tasks.steps.life import Step, Work, measured
from tasks.steps.manifest import positions
from tasks.steps.networks import WEIGHTS, choose_device, network_identity, pack_state, start_identity
from tasks.steps.recording import recording
from tasks.steps.trainer import GATE_MATRIX, Trainer, environment, open_batches, open_schedule, open_trainer
from tasks.training.loop import Fetch, Recorder, accuracy

VERSION = 1
CURVES = "epochs.parquet"
MEMORY_SAMPLES = 256 * 2**20  # bytes of preprocessed inputs that a worker keeps between steps
GATES_FILE = "gates.safetensors"
# A name, for which the manifest among the inputs stands; stages of their own; a path, for which its digest stands.
NO_RESULT = ("data", "snapshots", "start")


def training_spec(name: str, network: Network, manifest: StageSpec, seed: int) -> StageSpec:
    """Return the spec of the training of a network from one seed.

    Raises
    ------
    ValueError : the weights that it starts from are not there or do not fit; names the config's key
    """
    assert network.train is not None
    parameters, place, digests = network_identity(network, manifest)
    start, start_digest = start_identity(name, network)
    return StageSpec(
        "training",
        VERSION,
        {"network": parameters, "train": key_settings(network.train), "seed": seed},
        {"data": manifest},
        {**digests, **start_digest},
        {**place, "train": {**network.train.model_dump(mode="json"), **start}},
        label=f"{name} seed {seed}",
    )


def key_settings(train: Training) -> Document:
    """Return the settings that decide the result, without those that equal their default, in sections too."""
    full, found = train.model_dump(mode="json"), {}
    for name, field in Training.model_fields.items():
        value = getattr(train, name)
        if name in NO_RESULT or (not field.is_required() and value == field.get_default()):
            continue
        if not isinstance(value, Section):
            found[name] = full[name]
            continue
        found[name] = value.model_dump(mode="json", exclude_defaults=True, exclude={"archive_budget"})
        if "kind" in full[name]:
            found[name]["kind"] = full[name]["kind"]
    return found


def training_steps(spec: StageSpec, survey: Document) -> tuple[int, int]:
    """Return the steps of an epoch and of the whole training.

    Raises
    ------
    ValueError : the batches do not go with the data
    """
    train = spec.place["train"]
    per_epoch = open_batches(train, survey, int(spec.parameters["seed"])).per_epoch
    return per_epoch, per_epoch * int(train["epochs"])


def same_environment(training: StageSpec, made: Document, here: Document, remedy: str) -> None:
    """Raise StoreError where what was made in the environment `made` cannot go on bitwise `here`."""
    if (differs := environment_difference(made, here)) is not None:
        raise StoreError(
            f"{training.title}: its checkpoint was made with {differs} {made.get(differs)}, "
            f"here it is {here[differs]}; go on there, or {remedy}"
        )


@dataclass(frozen=True)
class Opened:
    """A training at step 0, and the held-out samples that its accuracy is measured on.

    Parameters
    ----------
    trainer : what makes its steps
    held_out, n_held_out : gives the samples 0..n-1
    from_weights : the accuracy before the first step is worth knowing
    """

    trainer: Trainer
    held_out: Fetch
    n_held_out: int
    from_weights: bool = False


Opener = Callable[[Stage, Partition, torch.device], Opened]  # the partition, for what the first segment writes


def chain_layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout of a chain: one partition per checkpoint interval."""
    manifest = open_finished(store, spec.inputs["data"])
    _, steps = training_steps(spec, manifest.summary)
    return Layout(-(-steps // int(spec.place["train"]["checkpoint_every"])))


def check_chain(stage: Stage) -> None:
    """Keep one chain: drop every segment that does not start from its predecessor's checkpoint."""
    keep_chain(stage)


def train_segment(work: Work, number: int, opener: Opener) -> None:
    """Train one segment and write its checkpoint, named by its digest so that two attempts never mix."""
    stage, device = work.stage, choose_device(work.device)
    train: Document = stage.spec.place["train"]
    parent = _parent(stage, number, environment(device))
    with stage.partition(number) as part:
        opened = opener(stage, part, device)
        trainer = opened.trainer
        if parent:
            trainer.load(_read_checkpoint(stage, parent["checkpoint"]))
        elif opened.from_weights:
            part.numbers["start_accuracy"] = accuracy(trainer.model, opened.held_out, opened.n_held_out)
        start, stop = _bounds(train, number, trainer.batches.per_epoch * int(train["epochs"]))
        with recording(train, part, trainer, start, stop) as recorder:
            losses, epochs = _segment(stage, opened, (start, stop), recorder)
        data = trainer.state()
        name = f"checkpoint-{number:06d}-{digest(data)[:12]}.safetensors"
        part.write_file(name, data)
        part.numbers.update(
            measured(
                parent=parent.get("checkpoint", ""),
                checkpoint=name,
                losses=losses,
                epochs=epochs,
                environment=environment(device),
            )
        )
        if number == stage.layout.partitions - 1:
            _write_result(stage, part, trainer)


def keep_content(stage: Stage, part: Partition) -> None:
    """Compare what the splits hold with what earlier stages were made from, and keep its digests for later ones."""
    train = stage.spec.place["train"]
    for split in dict.fromkeys((str(train["split"]), str(train["evaluate"]))):
        content = read_content(stage.store, stage.spec, split, MEMORY_SAMPLES)
        compare_content(stage, split, content, 0, positions(stage.store, stage.spec.inputs["data"].path, split))
        part.write_file(content_file(split), content.tobytes())


def held_out_images(stage: Stage, device: torch.device) -> tuple[Fetch, int]:
    """Return the function that gives held-out samples, and their number."""
    split = str(stage.spec.place["train"]["evaluate"])
    survey = open_finished(stage.store, stage.spec.inputs["data"]).summary
    fetch = open_fetch(stage.store, stage.spec, split, device, MEMORY_SAMPLES)
    return fetch, int(sum(survey["splits"][split]["counts"]))


def chain_summary(stage: Stage) -> Document:
    """State the last accuracy, and remove what abandoned attempts wrote."""
    markers = keep_chain(stage)
    sweep_files(stage, markers)
    first, last = markers[0]["numbers"], markers[-1]["numbers"]
    recorded = sum(marker["numbers"]["recording"]["bytes"] for marker in markers if "recording" in marker["numbers"])
    found: Document = {"accuracy": last["epochs"][-1]["accuracy"]}
    if "start_accuracy" in first:
        found["start_accuracy"] = first["start_accuracy"]
    return found | ({"archive_bytes": recorded} if recorded else {})


def _bounds(train: Document, number: int, total: int) -> tuple[int, int]:
    """Return the first and past-the-end step of a segment."""
    every = int(train["checkpoint_every"])
    return number * every, min((number + 1) * every, total)


def _segment(
    stage: Stage, opened: Opened, span: tuple[int, int], recorder: Recorder | None
) -> tuple[list[float], list[Document]]:
    """Make the steps of a segment; return their losses, and loss, accuracy and rate of each epoch that ends in it."""
    trainer, every = opened.trainer, int(stage.spec.place["train"]["checkpoint_every"])
    per_epoch = trainer.batches.per_epoch
    (start, stop), number = span, span[0] // every
    losses = _losses(stage, range(start // per_epoch * per_epoch // every, number))  # of the epoch under way
    n_before, epochs = len(losses), []
    while start < stop:
        end = min(stop, (start // per_epoch + 1) * per_epoch)
        losses += trainer.run(start, end, recorder)
        if end % per_epoch == 0:
            epochs.append(
                {
                    "epoch": end // per_epoch,
                    "loss": float(np.mean(losses[-per_epoch:])),
                    "accuracy": accuracy(trainer.model, opened.held_out, opened.n_held_out),
                    "lr": float(trainer.optimizer.param_groups[0]["lr"]),
                }
            )
        start = end
    return losses[n_before:], epochs


def _parent(stage: Stage, number: int, here: Document) -> Document:
    """Return the numbers of the segment before, after checking that it was made in this environment."""
    if number == 0:
        return {}
    marker = stage.marker(number - 1)
    assert marker is not None, number
    before: Document = marker["numbers"]
    remedy = f"remove {stage.store.path(stage.spec.path)} to train anew"
    same_environment(stage.spec, before["environment"], here, remedy)
    return before


def _read_checkpoint(stage: Stage, name: str) -> bytes:
    """Return a checkpoint after comparing it with the digest in its name."""
    data = stage.store.read(f"{stage.spec.path}/files/{name}")
    if digest(data)[:12] != name.split("-")[-1].removesuffix(".safetensors"):
        raise StoreError(f"{stage.spec.title}: checkpoint {name} is damaged; remove the stage's folder")
    return data


def _losses(stage: Stage, numbers: Sequence[int]) -> list[float]:
    """Return the losses of the steps of finished segments."""
    markers = [stage.marker(number) for number in numbers]
    return [loss for marker in markers if marker is not None for loss in marker["numbers"]["losses"]]


def _write_result(stage: Stage, part: Partition, trainer: Trainer) -> None:
    """Write the last weights and gates, and the curves; the numbers of this last segment are there."""
    part.write_file(WEIGHTS, pack_state(trainer.model))
    if trainer.gating is not None:
        part.write_file(GATES_FILE, pack_tensors({GATE_MATRIX: trainer.gating.gates.weight}))
    before = [stage.marker(earlier) for earlier in range(part.number)]
    numbers = [*(marker["numbers"] for marker in before if marker is not None), part.numbers]
    part.write_file(CURVES, table_bytes(_curves(stage.spec.place["train"], numbers, trainer.batches.per_epoch)))


def _curves(train: Document, segments: Sequence[Document], per_epoch: int) -> pd.DataFrame:
    """Return a row per epoch: mean loss, held-out accuracy, and the last learning rate where a schedule changes it.

    Where the accuracy before the first step was measured, it is that of epoch 0, which has no loss and no rate.
    """
    losses = [loss for numbers in segments for loss in numbers["losses"]]
    epochs = [epoch for numbers in segments for epoch in numbers["epochs"]]
    table = pd.DataFrame(
        {
            "epoch": [e["epoch"] for e in epochs],
            "loss": np.array(losses).reshape(-1, per_epoch).mean(axis=1),
            "accuracy": [e["accuracy"] for e in epochs],
        }
    )
    schedule = open_schedule(train, per_epoch)
    if schedule is not None:  # the table of a constant rate is as it was before there were schedules
        rates = [train["optimizer"]["lr"] * schedule(e * per_epoch - 1) for e in table["epoch"].tolist()]
        table = table.assign(lr=rates)
    if "start_accuracy" not in segments[0]:
        return table
    first = pd.DataFrame({"epoch": [0], "accuracy": [segments[0]["start_accuracy"]]})
    return pd.concat([first, table], ignore_index=True)[list(table.columns)]


def _open(stage: Stage, part: Partition, device: torch.device) -> Opened:
    """Return a network's own training."""
    if part.number == 0:
        keep_content(stage, part)
    trainer = open_trainer(stage.store, stage.spec, device, MEMORY_SAMPLES)
    return Opened(trainer, *held_out_images(stage, device))


def _partition(work: Work, number: int) -> None:
    """Train one segment of a network."""
    train_segment(work, number, _open)


TRAINING = Step(chain_layout, _partition, chain_summary, check_chain, network=True, chain=True)
