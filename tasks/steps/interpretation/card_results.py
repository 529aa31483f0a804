"""The tables and pictures of the cards of question 1, from finished stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from storage.together import together
from tasks.interpreters.nearest import match
from tasks.report.interpretation.card_results import FULL, CardResults
from tasks.report.pages import Image
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.interpretation.card_pictures import shown_classes
from tasks.steps.interpretation.methods import METHODS
from tasks.steps.interpretation.plan import Cell, Interpreted
from tasks.steps.interpretation.responses import call_of_unit

Matched = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
KEYS = ("set", "network", "seed", "interpreter", "noun", "selector", "budget", "reference", "directed")


@dataclass(frozen=True)
class _Set:
    """One set of features with cards; `cell` is None for those of the full data."""

    number: int
    reference: int
    answer: Interpreted
    interpreter: str
    features: StageSpec
    cell: Cell | None

    @property
    def row(self) -> dict[str, object]:
        """Return the row of the table of sets."""
        method, cell = METHODS[self.interpreter], self.cell
        selector, budget = (FULL, 1.0) if cell is None else (cell.selector, cell.budget)
        named = (self.number, self.answer.network, self.answer.seed, self.interpreter, method.noun, selector, budget)
        return dict(zip(KEYS, (*named, self.reference, method.directed is not None), strict=True))


def card_results(store: Store, answers: Sequence[Interpreted], images: str) -> CardResults | None:
    """Return what the cards show; None where no method has any.

    Parameters
    ----------
    images : `report.training_images`: without "show" there are no pictures of a split that a network is trained on,
        with "none" its sample ids are left out too
    """
    sets = _sets(answers)
    if not sets:
        return None
    parts = together(store, partial(_tables, store), sets)
    names = ("classes", "features", "images", "matches")
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in names}
    private = images != "show" and _training_images(answers)
    if private and images == "none":
        tables["images"] = tables["images"].assign(sample_id=-1)
    pictures = {} if private else {k: v for answer in answers for k, v in _pictures(store, answer).items()}
    known = tables["images"]["picture"].isin(list(pictures))
    tables["images"] = tables["images"].assign(picture=tables["images"]["picture"].where(known, ""))
    return CardResults(
        sets=pd.DataFrame([one.row for one in sets]),
        **tables,
        pictures=pictures,
        yardsticks=pd.DataFrame(
            [row for one in sets if one.cell is None for row in _yardstick(store, one)],
            columns=["network", "interpreter", "angle"],
        ),
        split=str(answers[0].held_out.parameters["split"]),
    )


def _sets(answers: Sequence[Interpreted]) -> list[_Set]:
    """Return all sets that have cards, each reference before its coresets."""
    sets: list[_Set] = []
    for answer in answers:
        for interpreter, features in answer.references.items():
            if features.path not in answer.cards:
                continue
            reference = len(sets)
            sets.append(_Set(reference, reference, answer, interpreter, features, None))
            for cell in (cell for cell in answer.cells if cell.interpreter == interpreter and not cell.repeat):
                sets.append(_Set(len(sets), reference, answer, interpreter, cell.features, cell))
    return sets


def _training_images(answers: Sequence[Interpreted]) -> bool:
    """Say whether images of the cards belong to a split that features or any network of the config learn from."""
    learned = {split for answer in answers for split in (str(answer.learn.parameters["split"]), *answer.trained)}
    return any(str(answer.held_out.parameters["split"]) in learned for answer in answers)


def _tables(store: Store, one: _Set) -> dict[str, pd.DataFrame]:
    """Return the tables of a set."""
    cards = open_finished(store, one.answer.cards[one.features.path])
    labels = np.asarray(cards.read("label"), np.int64)
    matched = _matched(store, one, len(labels))
    return {
        "classes": _classes(store, one, cards, labels),
        "features": _features(store, one, cards, labels, matched),
        "images": _images(store, one, cards, labels),
        "matches": _matches(one, labels, matched),
    }


def _matched(store: Store, one: _Set, n_classes: int) -> list[Matched]:
    """Return by class the features of the reference, the set's feature that each is matched with, and the angle."""
    method, reference = METHODS[one.interpreter], one.answer.references[one.interpreter]
    if method.directed is not None:
        mine, others = method.directed(store, reference), method.directed(store, one.features)
        found = [match(mine(index).directions(), others(index).directions()) for index in range(n_classes)]
        return [(np.arange(len(partner)), partner, angle) for partner, angle in found]
    assert method.numbers is not None
    own, other = method.numbers(store, reference), method.numbers(store, one.features)
    units = [(own(index), np.isin(own(index), other(index))) for index in range(n_classes)]
    return [(unit, np.where(same, unit, -1), np.full(len(unit), np.nan)) for unit, same in units]


def _matches(one: _Set, labels: NDArray[np.int64], matched: Sequence[Matched]) -> pd.DataFrame:
    """Return a row for each feature of the reference, class by class."""
    feature, partner, angle = (np.concatenate(part) for part in zip(*matched, strict=True))
    label = np.repeat(labels, [len(features) for features, _, _ in matched])
    return pd.DataFrame({"set": one.number, "label": label, "feature": feature, "partner": partner, "angle": angle})


def _yardstick(store: Store, one: _Set) -> list[dict[str, object]]:
    """Return the median angle between the features of each class and of the next; none where classes share them."""
    directed = METHODS[one.interpreter].directed
    if directed is None:
        return []
    read, cards = directed(store, one.features), open_finished(store, one.answer.cards[one.features.path])
    n = len(cards.read("label"))
    if n < 2 or np.array_equal(read(0).directions(), read(1).directions()):
        return []
    angles = [match(read(index).directions(), read((index + 1) % n).directions())[1] for index in range(n)]
    angle = float(np.nanmedian(np.concatenate(angles)))
    return [{"network": one.answer.network, "interpreter": one.interpreter, "angle": angle}]


def _classes(store: Store, one: _Set, cards: FinishedStage, labels: NDArray[np.int64]) -> pd.DataFrame:
    """Return a row for each class: its name, the number of its features, and the accuracy without them."""
    names = open_finished(store, one.answer.held_out.inputs["data"]).summary["class_names"]
    method = METHODS[one.interpreter]
    ranges = ranges_by_class(open_finished(store, one.answer.held_out))
    sizes = [stop - start for start, stop in ranges.values()]
    shown = np.isin(np.arange(len(labels)), shown_classes(len(labels)))
    columns = {"label": labels, "searched": cards.read("searched"), "n_images": sizes, "shown": shown}
    table = pd.DataFrame({"set": one.number, **columns})
    if method.directed is not None:
        read = method.directed(store, one.features)
        counts = [int(np.any(read(index).directions() != 0, axis=1).sum()) for index in range(len(labels))]
    else:
        assert method.numbers is not None
        numbers = method.numbers(store, one.features)
        counts = [len(numbers(index)) for index in range(len(labels))]
    class_names = [names.get(str(label), str(label)) for label in labels.tolist()]
    return table.assign(class_name=class_names, n_features=counts, **_accuracies(store, one, len(labels)))


def _accuracies(store: Store, one: _Set, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Return the accuracies of the classes as they are, and without their features, NaN where they are not known."""
    found = {name: np.full(n_classes, np.nan) for name in ("accuracy", "accuracy_without")}
    cell = _cell(one)
    if cell is not None:
        stage = open_finished(store, cell.evaluation)
        measures, values = stage.summary["measures"], np.asarray(stage.read("values"), np.float64)
        for name, measure in (("accuracy", "accuracy_plain"), ("accuracy_without", "accuracy_without")):
            if measure in measures:
                found[name] = values[:, measures.index(measure)]
    return found


def _cell(one: _Set) -> Cell | None:
    """Return the coreset of a set, for the full data one of budget 1 where there is one."""
    same = (cell for cell in one.answer.cells if cell.features.path == one.features.path)
    return one.cell or next(same, None)


def _features(
    store: Store, one: _Set, cards: FinishedStage, labels: NDArray[np.int64], matched: Sequence[Matched]
) -> pd.DataFrame:
    """Return a row for each feature that has a card."""
    number = np.asarray(cards.read("feature"), np.int64)
    row, slot = np.nonzero(number >= 0)
    feature, matched_with, angle = number[row, slot], np.full(len(row), -1, np.int64), np.full(len(row), np.nan)
    for at, (index, own) in enumerate(zip(row.tolist(), feature.tolist(), strict=True)):
        features, partner, angles = matched[index]
        if (hit := np.flatnonzero(partner == own)).size:
            matched_with[at], angle[at] = features[hit[0]], angles[hit[0]]
    named = _namer(store, one)
    cell, shapley = _cell(one), np.full(int(number.max(initial=-1)) + 1, np.nan)
    if cell is not None and cell.scores is not None:
        shapley = np.asarray(open_finished(store, cell.scores).read("shapley"), np.float64)
    columns = {
        "set": one.number,
        "label": labels[row],
        "slot": slot,
        "feature": feature,
        "name": [named(unit)[0] for unit in feature.tolist()],
        "layer": [named(unit)[1] for unit in feature.tolist()],
        "importance": np.asarray(cards.read("importance"), np.float64)[row, slot],
        "activity": np.asarray(cards.read("activity"), np.float64)[row, slot],
        "shapley": shapley[feature],
        "matched": matched_with,
        "angle": angle,
    }
    return pd.DataFrame(columns)


def _namer(store: Store, one: _Set) -> Callable[[int], tuple[str, str]]:
    """Return what gives the name of a feature, and its layer: "" but for units."""
    method = METHODS[one.interpreter]
    if method.numbers is None:
        return lambda number: (f"{method.noun} {number}", "")
    layers = open_finished(store, one.features).summary["layers"]
    calls, starts = call_of_unit(layers), np.cumsum(layers) - layers

    def named(unit: int) -> tuple[str, str]:
        layer = f"ReLU {calls[unit] + 1} of {len(layers)}"
        return f"{layer}, channel {unit - starts[calls[unit]]}", layer

    return named


def _images(store: Store, one: _Set, cards: FinishedStage, labels: NDArray[np.int64]) -> pd.DataFrame:
    """Return a row for each image of each feature."""
    position, box = np.asarray(cards.read("position"), np.int64), np.asarray(cards.read("box"), np.float64)
    row, slot, rank = np.nonzero(position >= 0)
    ids = np.asarray(open_finished(store, one.answer.held_out).read("sample_id"), np.int64)
    at = position[row, slot, rank]
    columns = {
        "set": one.number,
        "label": labels[row],
        "feature": np.asarray(cards.read("feature"), np.int64)[row, slot],
        "rank": rank,
        "sample_id": ids[at],
        "value": np.asarray(cards.read("value"), np.float64)[row, slot, rank],
        "picture": [f"{one.answer.network}:{number}" for number in at.tolist()],
    }
    sides = dict(zip(("top", "left", "bottom", "right"), box[row, slot, rank].T, strict=True))
    return pd.DataFrame(columns | sides)


def _pictures(store: Store, answer: Interpreted) -> dict[str, Image]:
    """Return the pictures of an answer by key; without a stage of pictures none."""
    if answer.card_pictures is None:
        return {}
    stage = open_finished(store, answer.card_pictures)
    images, positions = np.asarray(stage.read("image"), np.uint8), stage.read("position").tolist()
    return {f"{answer.network}:{number}": image for number, image in zip(positions, images, strict=True)}


def feature_table(cards: CardResults) -> pd.DataFrame:
    """Return the table `features`: each feature that has a card, with its match in the full data."""
    keys = ["set", "label", "feature"]
    known = cards.images[cards.images["sample_id"] >= 0].sort_values([*keys, "rank"])
    ids: dict[tuple[int, ...], list[str]] = {}
    for *key, sample in zip(*(known[name].tolist() for name in (*keys, "sample_id")), strict=True):
        ids.setdefault(tuple(key), []).append(str(sample))
    named = cards.sets[["set", "network", "seed", "interpreter", "selector", "budget"]]
    table = cards.features.merge(named, on="set")
    rows = zip(*(table[name].tolist() for name in keys), strict=True)
    columns = ["network", "seed", "interpreter", "selector", "budget", "label", "feature", "name", "layer"]
    columns += ["importance", "activity", "shapley", "matched", "angle"]
    return table[columns].assign(sample_ids=[" ".join(ids.get(row, [])) for row in rows])
