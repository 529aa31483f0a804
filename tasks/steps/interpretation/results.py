"""The results of question 1: its tables and heat maps, from finished stages."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from storage.partitions import Block
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.together import together
from tasks.figures.layer_names import joined_title
from tasks.figures.overlay import overlay
from tasks.metrics.comparisons import against_random, with_budget
from tasks.metrics.summary import by_budget, over_repeats, robustness_table
from tasks.metrics.transfer import transfer_summary, transfer_table
from tasks.report.interpretation.results import Gallery, GalleryRow, InterpretationResults
from tasks.steps.common.activations import LAST_MAP, ranges_by_class
from tasks.steps.common.layer_titles import layer_titles
from tasks.steps.common.standing import most_frequent
from tasks.steps.interpretation.coresets import KEYS as CORESET_KEYS
from tasks.steps.interpretation.coresets import selection_table, unique_coresets
from tasks.steps.interpretation.costs import KEYS, cost_table
from tasks.steps.interpretation.methods import METHODS
from tasks.steps.interpretation.plan import Cell, Interpreted
from tasks.steps.interpretation.selection import kept_positions
from tasks.steps.interpretation.unit_results import robustness_with_units, unit_results

LOGGED = ("clamped", "predicted")  # what only some interpreters log of a class


def interpretation_results(store: Store, answers: Sequence[Interpreted]) -> InterpretationResults:
    """Return the tables and heat maps of question 1's page."""
    cells = cells_of(answers)
    classes = class_table(store, cells)
    budgets = by_budget(classes).merge(cost_table(store, cells), on=list(KEYS), how="left")
    own = classes[classes["coreset_from"] == classes["network"]]
    units = unit_results(store, answers, classes)
    galleries = {title: spec for answer in answers for title, spec in answer.galleries.items()}
    return InterpretationResults(
        networks=pd.DataFrame([_network(store, answer) for answer in answers]),
        seen={answer.network: answer.seen for answer in answers if answer.seen},
        classes=classes,
        by_budget=_with_sender(budgets, cells),
        over_repeats=_with_sender(over_repeats(budgets), cells),
        robustness=robustness_with_units(_with_sender(robustness_table(budgets), cells), units),
        transfer=transfer_table(classes),
        transfer_summary=transfer_summary(classes),
        against_random=against_random(own),
        with_budget=with_budget(own),
        selections=selection_table(store, cells),
        methods=method_tables(store, cells),
        galleries=tuple(_gallery(store, title, spec) for title, spec in galleries.items()),
        units=units,
    )


def cells_of(answers: Sequence[Interpreted]) -> list[Cell]:
    """Return the coresets of all networks and seeds, for each interpreter."""
    return [cell for answer in answers for cell in answer.cells]


def _with_sender(table: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """Add the network that selected each row's coresets."""
    senders = {(cell.network, cell.selector): cell.coreset_from for cell in cells}
    found = [senders[key] for key in zip(table["network"], table["selector"], strict=True)]
    return table.assign(coreset_from=found)


def class_table(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the table of classes: a row per (network, seed, interpreter, selector, repeat, budget, label)."""
    return pd.concat(together(store, partial(_cell_table, store), cells), ignore_index=True)


def _cell_table(store: Store, cell: Cell) -> pd.DataFrame:
    """Return the rows of a cell, one per label."""
    evaluation, features = open_finished(store, cell.evaluation), open_finished(store, cell.features)
    measured = dict(zip(evaluation.summary["measures"], evaluation.read("values").T, strict=True))
    labels = evaluation.read("label").tolist()
    held_out = cell.evaluation.inputs["activations"]
    names = open_finished(store, held_out.inputs["data"]).summary["class_names"]
    logged = [features.summary["classes"][str(label)] for label in labels]
    class_ranges = ranges_by_class(open_finished(store, cell.selection.inputs["activations"]))
    columns = {
        **measured,
        **{key: getattr(cell, key) for key in (*KEYS, "coreset_from")},
        "label": labels,
        "class_name": [names.get(str(label), str(label)) for label in labels],
        "n_class": [class_ranges[label][1] - class_ranges[label][0] for label in labels],
        "n_kept": [numbers["kept"] for numbers in logged],
        "error_fit": [numbers["relative_error"] for numbers in logged],
        "seconds": [numbers["seconds"] for numbers in logged],
        **{name: [numbers[name] for numbers in logged] for name in LOGGED if all(name in n for n in logged)},
    }
    return pd.DataFrame(columns).astype(dict.fromkeys(("n_rows", "n_val", "rank", "rank_reference"), "int64"))


def coreset_table(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the coresets as lists of sample ids, for trainings in other programs."""
    unique = unique_coresets(cells)
    selected_from = {cell.selection.inputs["activations"] for cell in unique}
    ids = {spec.path: open_finished(store, spec).read("sample_id") for spec in selected_from}
    return pd.concat(together(store, lambda cell: _coreset_rows(store, cell, ids), unique), ignore_index=True)


def _coreset_rows(store: Store, cell: Cell, ids: Mapping[str, Block]) -> pd.DataFrame:
    """Return the rows of a coreset, class by class; `ids` are those of the samples, by path of the activations."""
    selection, activations = open_finished(store, cell.selection), cell.selection.inputs["activations"]
    kept = kept_positions(selection)
    counts = [len(positions) for positions in kept]
    rows = {
        "label": np.repeat(selection.read("label"), counts),
        "rank": np.concatenate([np.arange(count) for count in counts]),
        "id": ids[activations.path][np.concatenate(kept)],
    }
    keys = {key: getattr(cell, key) for key in CORESET_KEYS}
    return pd.DataFrame({**rows, **keys, "manifest": activations.inputs["data"].key})


def _network(store: Store, answer: Interpreted) -> dict[str, object]:
    """Return the row of a network and seed: its description and its accuracies."""
    stage = open_finished(store, answer.held_out)
    logits, labels = stage.read("logits").astype(np.float32), stage.read("label")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5] == labels[:, None]
    tokens, learn = stage.summary.get("tokens", ""), open_finished(store, answer.learn)
    return {
        "network": answer.network,
        "seed": answer.seed,
        "model": answer.held_out.parameters["network"]["model"],
        "layer": answer.held_out.parameters["layer"],
        "layer_title": _layer_title(answer.held_out, int(stage.summary["map"][-1])),
        "top1": float(best[:, 0].mean()),
        "top5": float(best.any(axis=1).mean()),
        "chance": most_frequent(labels),
        "n_outputs": logits.shape[1],
        "n_classes": len(np.union1d(labels, learn.read("label"))),
        "n_val": stage.summary["samples"],
        "n_train": learn.summary["samples"],
        "map_shape": " x ".join(map(str, stage.summary["map"])) + (f" ({tokens})" if tokens else ""),
    }


def _layer_title(held_out: StageSpec, channels: int) -> str:
    """Return the name of the layer for people, with what it is."""
    layer = str(held_out.parameters["layer"])
    if layer == LAST_MAP:
        return joined_title(layer, f"the last map before pooling, {channels:,} channels")
    return layer_titles(held_out, [layer], channels={layer: channels}).get(layer, layer)


def _gallery(store: Store, title: str, spec: StageSpec) -> Gallery:
    """Return the images and heat maps of a gallery stage."""
    return Gallery(title, tuple(_gallery_rows(store, spec)))


def _gallery_rows(store: Store, spec: StageSpec) -> Iterator[GalleryRow]:
    """Yield each image with its heat maps."""
    stage = open_finished(store, spec)
    names = open_finished(store, spec.inputs["activations"].inputs["data"]).summary["class_names"]
    read = {name: stage.read(name) for name in stage.layout.arrays}
    for i, image in enumerate(read["image"]):
        heats = zip(stage.summary["titles"], read["heat"][i] / 255.0, strict=True)
        true, predicted = (names.get(str(label), str(label)) for label in (read["label"][i], read["predicted"][i]))
        overlays = {title: overlay(image, heat) for title, heat in heats}
        yield GalleryRow(image, int(read["sample_id"][i]), true, predicted, overlays)


def method_tables(store: Store, cells: Sequence[Cell]) -> dict[str, pd.DataFrame]:
    """Return the further tables of the methods, by name: a method's rows with the keys of their coreset."""
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        tables = METHODS[cell.interpreter].tables
        if tables is None:
            continue
        keys = {key: getattr(cell, key) for key in KEYS if key != "interpreter"}
        for name, table in tables(store, cell.features, cell.evaluation, cell.scores).items():
            found.setdefault(name, []).append(table.assign(**keys))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
