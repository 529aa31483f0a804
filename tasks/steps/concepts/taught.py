"""What taught neurons their concepts, as question 3's page reads it from finished stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from storage.results import read_table
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.io.samples import array_digest
from tasks.report.concepts.taught import REST, Taught

if TYPE_CHECKING:
    from tasks.report.pages import Image
    from tasks.steps.concepts.plan import Monitored

NEURONS_FILE, EXAMPLES_FILE, CLASSES_FILE = "neurons.parquet", "examples.parquet", "classes.parquet"
OTHERS = -1  # in place of a label: all classes that are not listed


def read_taught(store: Store, answers: Sequence[Monitored], images: str) -> Taught:
    """Return what taught the neurons of all answers.

    Parameters
    ----------
    images : `report.training_images`: with `ids` there are no pictures, with `none` no ids either
    """
    neurons, examples, classes = [], [], []
    pictures: dict[str, Image] = {}
    notes: list[str] = []
    for answer in answers:
        notes += [] if not answer.untaught else [f"{answer.network}: {answer.untaught}"]
        for spec in answer.taught:
            stage = open_finished(store, spec)
            layer = str(stage.summary["layer"])
            at = partial(_placed, network=answer.network, seed=answer.seed, layer=layer)
            notes += _notes(stage, answer.network)
            own = _file(stage, NEURONS_FILE)
            if own.empty:
                continue
            anchor = str(spec.inputs["contributions"].place["anchor"])
            neurons.append(at(own.assign(operation=str(stage.summary["operation"]), anchor=anchor)))
            classes.append(at(_named(_file(stage, CLASSES_FILE), stage)))
            if images != "none":
                table = at(_named(_file(stage, EXAMPLES_FILE), stage))
                keys = _pictures(stage, pictures) if images == "show" else {}
                examples.append(table.assign(picture=[keys.get(each, "") for each in table["sample_id"].tolist()]))
    bare, kept = Taught(), tuple(dict.fromkeys(notes))
    return Taught(
        pd.concat(neurons, ignore_index=True) if neurons else bare.neurons,
        pd.concat(examples, ignore_index=True) if examples else bare.examples,
        pd.concat(classes, ignore_index=True) if classes else bare.classes,
        pictures,
        kept,
    )


def _placed(table: pd.DataFrame, network: str, seed: int, layer: str) -> pd.DataFrame:
    """Return a table with the columns that say where its rows belong."""
    return table.assign(network=network, seed=seed, layer=layer)


def _notes(stage: FinishedStage, network: str) -> list[str]:
    """Say why a layer is not traced, or how many of its neurons are not."""
    layer = stage.summary["layer"]
    if stage.summary["why"]:
        return [f"{network}: {stage.summary['why']}."]
    left = int(stage.summary["left_out"])
    if not left:
        return []
    return [
        f"{network}, layer {layer}: {left:,} more interpretable neurons are not traced; `concepts.teachers.neurons` "
        "sets how many are."
    ]


def _file(stage: FinishedStage, name: str) -> pd.DataFrame:
    """Return a table of a stage."""
    return read_table(stage.read_file(name), f"{stage.path}/files/{name}")


def _named(table: pd.DataFrame, stage: FinishedStage) -> pd.DataFrame:
    """Return a table with the names of its labels."""
    names = {int(label): str(name) for label, name in stage.summary["class_names"].items()} | {OTHERS: REST}
    return table.assign(class_name=[names.get(label, str(label)) for label in table["label"].tolist()])


def _pictures(stage: FinishedStage, pictures: dict[str, Image]) -> dict[int, str]:
    """Add a stage's pictures by their digest, and return the digests by sample id."""
    if "image" not in stage.layout.arrays:
        return {}
    keys = {}
    for sample, picture in zip(stage.read("sample_id").tolist(), stage.read("image").astype(np.uint8), strict=True):
        keys[int(sample)] = array_digest(picture)[:16]
        pictures[keys[int(sample)]] = picture
    return keys
