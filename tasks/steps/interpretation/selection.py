"""The selection stage: the samples of each class in a coreset.

All coresets of one layer's activations are selected together, in one pass over the features.
"""

from collections.abc import Hashable, Mapping

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition
from storage.specs import StageSpec, signature_defaults, without_defaults
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.coresets import ACROSS_CLASSES, SELECTORS
from tasks.engine.life import Clock, measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.engine.writing import write_each
from tasks.steps.common.activations import map_shapes, ranges_by_class

VERSION = 1
GROUP_VALUES = 20_000_000  # feature values per partition: about a second of work


def selection_spec(
    activations: StageSpec, selector: str, parameters: Mapping[str, Json], budget: float, seed: int, repeat: int
) -> StageSpec:
    """Return the spec of a coreset; at budget 1 all selectors keep all samples, so they share one stage."""
    if budget == 1.0:
        return SELECTION.spec({"budget": 1.0}, {"activations": activations}, label="full data")
    own = without_defaults(parameters, {**signature_defaults(SELECTORS[selector]), "scope": "class"})
    kept = {"selector": selector, "budget": budget, "seed": seed, "repeat": repeat, **own}
    label = f"{selector} {budget:g}" + (f" draw {repeat}" if repeat else "")
    return SELECTION.spec(kept, {"activations": activations}, label=label)


def logged_parameters(spec: StageSpec) -> dict[str, Json]:
    """Return the settings of a selector by which its logged distances are read, None where it does not have them."""
    names = ("gamma_f", "gamma_r", "scale", "combine", "message")
    defaults = signature_defaults(SELECTORS[spec.parameters["selector"]]) if "selector" in spec.parameters else {}
    return {name: spec.parameters.get(name, defaults.get(name)) for name in names}


def classes_per_partition(n_classes: int, values: int, budget: int) -> int:
    """Return the number of classes in a partition if the largest class has `values` numbers."""
    return max(1, min(n_classes, budget // max(1, values)))


def kept_positions(stage: FinishedStage, first: int = 0, last: int | None = None) -> list[NDArray[np.int64]]:
    """Return the kept positions of the classes with the indices `first:last`, each in the order of choice."""
    return [order[order >= 0].astype(np.int64) for order in stage.read("order", first, last)]


def _layout(store: Store, spec: StageSpec) -> Layout:
    activations = open_finished(store, spec.inputs["activations"])
    class_ranges = ranges_by_class(activations)
    longest = max(stop - start for start, stop in class_ranges.values())
    width = activations.layout.arrays["pooled"].shape[1]
    rows = classes_per_partition(len(class_ranges), longest * width, GROUP_VALUES)
    if _scope(spec) == "dataset":
        rows = len(class_ranges)  # one partition: each class's samples depend on all classes
    order = ArrayLayout((len(class_ranges), longest), "int64", ("class", "rank"), rows, rows)
    labels = ArrayLayout((len(class_ranges),), "int64", ("class",), rows, rows)
    return Layout(order.partitions, {"order": order, "label": labels})


def _scope(spec: StageSpec) -> str:
    """Return "class" or "dataset": within what a coreset's samples are compared."""
    return str(spec.parameters.get("scope", "class"))


def _together(spec: StageSpec) -> Hashable:
    """Return the activations that a coreset is selected from, and its scope: its layout depends on both."""
    return spec.inputs["activations"], _scope(spec)


def _partition(work: Work, number: int) -> None:
    """Select for all stages in the work; one class after the other, or over all classes."""
    if _scope(work.stage.spec) == "dataset":
        for stage in work.stages:
            _select_across(stage, number)
        return
    stages = work.stages
    clock, finished = Clock(), open_finished(stages[0].store, stages[0].spec.inputs["activations"])
    first, last = stages[0].layout.arrays["order"].span(number)
    class_ranges = list(ranges_by_class(finished).items())[first:last]
    orders = [np.full((last - first, stage.layout.arrays["order"].shape[1]), -1, np.int64) for stage in stages]
    infos: list[dict[str, Json]] = [{} for _ in stages]
    for row, (label, (start, stop)) in enumerate(class_ranges):
        # Selectors compute in float64, so one conversion here serves all of them.
        features = finished.read("pooled", start, stop).astype(np.float64)
        for stage, order, info in zip(stages, orders, infos, strict=True):
            kept, info[str(label)] = _select(stage.spec, features, label)
            order[row, : len(kept)] = start + kept
    labels, spent = np.array([label for label, _ in class_ranges], np.int64), clock.share(len(stages))

    def write(index: int, part: Partition) -> None:
        part.write("order", orders[index])
        part.write("label", labels)
        part.numbers.update(measured(classes=infos[index], together=len(stages), **spent))

    write_each(stages, number, write)


def _select_across(stage: Stage, number: int) -> None:
    """Select the coreset of a stage over all classes; a class is read at a time."""
    parameters = dict(stage.spec.parameters)
    clock, finished = Clock(), open_finished(stage.store, stage.spec.inputs["activations"])
    select, budget = ACROSS_CLASSES[parameters.pop("selector")], parameters.pop("budget")
    for name in ("scope", "seed", "repeat"):
        parameters.pop(name, None)
    class_ranges = ranges_by_class(finished)
    classes = (finished.read("pooled", *span).astype(np.float64) for span in class_ranges.values())
    order = np.full(stage.layout.arrays["order"].shape, -1, np.int64)
    info: dict[str, Json] = {}
    spans = class_ranges.items()
    for row, ((label, (start, stop)), chosen) in enumerate(
        zip(spans, select(classes, budget, **parameters), strict=True)
    ):
        order[row, : len(chosen.order)] = start + chosen.order
        info[str(label)] = {"kept": len(chosen.order), "of": stop - start, **dict(chosen.info)}
    with stage.partition(number) as part:
        part.write("order", order)
        part.write("label", np.array(list(class_ranges), np.int64))
        part.numbers.update(measured(classes=info, **clock.share(1)))


def _select(spec: StageSpec, features: NDArray[np.float64], label: int) -> tuple[NDArray[np.int64], Json]:
    """Return the rows of one class in a coreset, in the order of choice, and their metrics."""
    parameters = dict(spec.parameters)
    budget, seed, repeat = parameters.pop("budget"), parameters.pop("seed", 0), parameters.pop("repeat", 0)
    select = SELECTORS[parameters.pop("selector", "random")]
    try:
        chosen = select(features, budget, seed=[seed, repeat, label], **parameters)
    except ValueError as error:
        raise ValueError(f"class {label}: {error}") from error
    kept = np.sort(chosen.kept) if budget == 1.0 else chosen.order
    return kept, {"kept": len(kept), "of": len(features), **dict(chosen.info)}


def common_classes(store: Store, spec: StageSpec, other: str) -> dict[int, tuple[int, int]]:
    """Return the class ranges of a stage's held-out activations.

    Raises
    ------
    ValueError : the split from which its input `other` was learned has other classes
    """
    found = ranges_by_class(open_finished(store, spec.inputs["activations"]))
    learned = ranges_by_class(open_finished(store, spec.inputs[other].inputs["activations"]))
    if list(found) != list(learned):
        odd = min(set(found) ^ set(learned))
        raise ValueError(f"{spec.title}: expected class {odd} in both compared splits, found it in one")
    return found


def count_classes(activations: StageSpec, survey: Survey) -> tuple[int, int]:
    """Return the number of classes of an activations stage and the samples of the largest."""
    counts = survey.data(activations.inputs["data"]).split(activations.parameters["split"])["counts"]
    return len(counts), max(counts)


def _size(spec: StageSpec, survey: Survey) -> Size:
    activations = spec.inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    across = 8 * 8 * n_classes * longest if _scope(spec) == "dataset" else 0  # distances, ranks and orders of all
    return Size(8 * n_classes * longest, longest * map_shapes(activations, survey).maps[0] * 24 + across)


SELECTION = Step("selection", VERSION, _layout, _partition, _size, group=_together)
