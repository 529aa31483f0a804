"""The linked-updates stage: a network trained elsewhere, by the archive of its loop.

It plays the part of a training: it has the last weights, and ties the archive's ids to samples of a data set. The
archive stays where it is. Its digest is in the key, and each reading compares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from configs.imports import code_digest
from configs.schema import Network
from configs.training import Training
from configs.updates import Updates
from storage.documents import DamagedError, Document
from storage.layouts import Layout
from storage.partitions import Partition
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage
from storage.stores import Store, StoreError
from storage.updates.archives import conversion_of
from storage.updates.facts import ArchiveFacts, archive_digest, distinct_ids
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.digests import file_sha256
from tasks.io.files import resolved
from tasks.steps.common.chain import held_out_images, keep_content
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import WEIGHTS, choose_device, load_packed, network_identity, pack_state
from tasks.steps.common.survey import check_outputs, state_bytes
from tasks.steps.common.tied import CONVERSION, IDS, facts_of, planned_facts, tie_ids
from tasks.steps.common.trials import check_logits

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = 1
BY_NAME = ("id", "order")  # meanings of ids without a table
UNKNOWN_DECAY = "adam"  # an optimiser with decay that cannot be separated
SAME = ("weight_decay", "momentum", "nesterov", "dampening", "maximize")  # settings that decay depends on


def linked_spec(name: str, network: Network, learned: tuple[str, str], manifest: StageSpec) -> StageSpec:
    """Return the spec of a network trained elsewhere.

    Parameters
    ----------
    learned : data set and split that it was trained on

    Raises
    ------
    ValueError : the archive is missing, not closed or damaged; a replay without a program; names the config's key
    """
    asked = network.updates
    assert asked is not None
    url = resolved(asked.url)
    try:
        facts = facts_of(url)
        made = _read_in_its_place(asked, facts)
        kind = facts.kind if made is None else str(made.summary["kind"])
        train = _described(facts, learned, asked.evaluate, kind)
        digests = {"updates": facts.digest, **_outside(asked)}
        digests |= {} if made is None else {CONVERSION: archive_digest(made)}
    except (ValueError, OSError, StoreError, DamagedError) as error:
        raise ValueError(f"networks.{name}.updates: {' '.join(str(error).split())}") from error
    parameters, place, code = network_identity(name, network, manifest)
    ids = asked.ids if asked.ids in BY_NAME else "table"
    settings: Document = {"network": parameters, "split": asked.split, "evaluate": asked.evaluate, "ids": ids}
    archive = {"kind": kind, "bytes": sum(each["bytes"] for each in facts.recordings), "steps": facts.steps}
    place |= {"updates": url, "program": asked.program, "train": train, "archive": archive}
    place |= {"table": None if ids in BY_NAME else resolved(asked.ids)}
    return LINKED.spec(settings, {"data": manifest}, digests={**code, **digests}, place=place, label=name)


def has_losses(spec: StageSpec) -> bool:
    """Return whether the ledger of a network trained elsewhere has the loss of every step."""
    return bool(np.isfinite(facts_of(str(spec.place["updates"])).ledger["loss"]).all())


def _read_in_its_place(asked: Updates, facts: ArchiveFacts) -> FinishedStage | None:
    """Return the conversion that is read in the place of an archive: of a replay without a program; else None."""
    from tasks.recording.archives import ARCHIVES

    if facts.kind not in ARCHIVES:
        raise ValueError(f"expected an archive of kind {', '.join(ARCHIVES)}, found {facts.kind!r}")
    if not ARCHIVES[facts.kind].recomputes or asked.program is not None:
        return None
    if (made := conversion_of(facts.stage)) is None:
        raise ValueError(
            f"expected a program that makes the steps of a {facts.kind} archive again, found none; set `program` to "
            "its import path module:function, or convert the archive with `layerlore materialise`"
        )
    return made


def _outside(asked: Updates) -> dict[str, str]:
    """Return the digests of the table of ids and of the program."""
    found = {} if asked.program is None else {"program": code_digest(asked.program)}
    return found if asked.ids in BY_NAME else {**found, "ids": file_sha256(resolved(asked.ids))}


def _described(facts: ArchiveFacts, learned: tuple[str, str], evaluate: str, kind: str) -> Document:
    """Return a training's settings as far as its archive states them; batches are those of the largest step."""
    ledger, (data, split) = facts.ledger, learned
    epochs = ledger["epoch"]
    if epochs.min() < 0:
        raise ValueError(f"expected epochs from 0 on in its ledger, found {epochs.min()}; give recorder.step an epoch")
    most = max(len(e) + len(g) for e, g in zip(ledger["examples"], ledger["ghosts"], strict=True))
    settings = {
        "data": data,
        "split": split,
        "evaluate": evaluate,
        "epochs": int(epochs.max()) + 1,
        "optimizer": _optimizer(facts),
        "batches": {"kind": "shuffled", "size": max(1, most)},
        "checkpoint_every": int(facts.recordings[0]["stop"]),
        "record": {"kind": kind, "layers": list(facts.contents[0])},
    }
    return Training.model_validate(settings).model_dump(mode="json")


def _optimizer(facts: ArchiveFacts) -> Document:
    """Return an optimiser of a config with the weight decay of the archive's; see UNKNOWN_DECAY."""
    name, groups = facts.optimizer
    decays = [group.get("weight_decay", 0) for group in groups]
    if not any(decays):
        return {"kind": "sgd", "lr": 1.0}
    first = groups[0]
    one = all(group.get(key) == first.get(key) for group in groups for key in SAME)
    one_rate = all(len(set(lrs)) == 1 for lrs in facts.ledger["lrs"].map(tuple))
    plain = one and one_rate and not first.get("maximize") and not first.get("dampening")
    if plain and name == "AdamW" and isinstance(decays[0], float | int):
        return {"kind": "adamw", "weight_decay": decays[0]}
    if plain and name == "SGD" and isinstance(decays[0], float | int) and 0 <= first["momentum"] < 1:
        return {"kind": "sgd", "lr": 1.0, **{key: first[key] for key in ("weight_decay", "momentum", "nesterov")}}
    return {"kind": UNKNOWN_DECAY, "weight_decay": 1.0}


def _ids(spec: StageSpec, facts: ArchiveFacts, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of ids that ties an archive to the samples `rows` of a data set; names the config's key."""
    table = spec.place["table"]
    try:
        known = None if table is None else pd.read_csv(str(table), dtype={"key": str}, keep_default_na=False)
        return tie_ids(distinct_ids(facts.ledger), rows, str(spec.parameters["ids"]), known)
    except (ValueError, OSError) as error:
        name = spec.inputs["data"].place["name"]
        raise ValueError(f"networks.{spec.place['network']}.updates.ids: data {name}: {error}") from error


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Tie the ids, keep the last weights, and measure their accuracy."""
    from tasks.io.networks import build_model
    from tasks.io.tensors import pack_tensors
    from tasks.recording.checkpoints import checkpoint_versions, checkpoint_weights
    from tasks.training.loop import accuracy

    stage, spec = work.stage, work.stage.spec
    facts = planned_facts(spec)
    rows = positions(stage.store, spec.inputs["data"].path, str(spec.parameters["split"]))
    last, network = facts.last, spec.parameters["network"]
    data, device = facts.stage.read_file(last), choose_device(work.device)
    with stage.partition(number) as part:
        keep_content(stage, part)
        part.write_file(IDS, table_bytes(_ids(spec, facts, rows)))
        model = build_model(network["model"], network["arguments"], 0)
        load_packed(model, pack_tensors(checkpoint_weights(data, last), checkpoint_versions(data, last)))
        part.write_file(WEIGHTS, pack_state(model))
        share = accuracy(model.to(device), *held_out_images(stage, device))
        _measure(part, facts, share)


def _measure(part: Partition, facts: ArchiveFacts, share: float) -> None:
    """Add the metrics of a recorded training."""
    ledger = facts.ledger
    mean = float(ledger["loss"][ledger["epoch"] == ledger["epoch"].iloc[-1]].mean())
    loss = mean if np.isfinite(mean) else None
    recorded: Document = {key: sum(each[key] for each in facts.recordings) for key in ("bytes", "waited_seconds")}
    recorded["kind"] = facts.kind
    epochs = [{"epoch": int(ledger["epoch"].max()) + 1, "loss": loss, "accuracy": share}]
    part.numbers.update(measured(epochs=epochs, recording=recorded))


def _summary(stage: Stage) -> Document:
    """Return the accuracy and the number of steps."""
    record = stage.marker(0)
    assert record is not None
    return {"accuracy": record["numbers"]["epochs"][-1]["accuracy"], "steps": stage.spec.place["archive"]["steps"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size, after checks that model, archive and data set go together."""
    facts, train, found = facts_of(str(spec.place["updates"])), training_of(spec), survey.data(spec.inputs["data"])
    for split in (train.split, train.evaluate):
        found.split(split)
    _check_model(spec, facts, survey.blank(spec))

    def look(model: nn.Module, example: Tensor, images: Tensor) -> int:
        check_logits(model, images)
        return int(model(example.clone()).shape[1])

    check_outputs(found, survey.look(spec, "logits of a network trained elsewhere", look), spec.inputs["data"])
    rows = survey.rows(spec.inputs["data"])
    tied = _ids(spec, facts, rows[rows["split"] == train.split])
    weights = state_bytes(survey.blank(spec))
    return Size(weights + 16 * len(tied), 2 * MEMORY_SAMPLES + 4 * weights)


def _check_model(spec: StageSpec, facts: ArchiveFacts, model: nn.Module) -> None:
    """Raise ValueError unless a network has the tensors of the archive."""
    if other := facts.other_tensor({name: tuple(value.shape) for name, value in model.state_dict().items()}):
        raise ValueError(
            f"networks.{spec.place['network']}: expected the model of the archive `updates`, {other}; set `model` and "
            "`arguments` to it"
        )


LINKED = Step("linked-updates", VERSION, _layout, _partition, _size, summary=_summary, network=True, keeps_content=True)
