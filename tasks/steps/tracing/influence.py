"""The influence stage: contributions summed over examples, classes and epochs, and densities of cosines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec, without_defaults
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of, training_steps
from tasks.steps.common.manifest import positions
from tasks.steps.common.recording import kept_steps, recorded_layers
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.by_class import Summed, sum_bytes, summed_at_once
from tasks.steps.tracing.projection import INPUT_BYTES
from tasks.steps.tracing.queries import count_queries
from tasks.steps.tracing.series import Contributions, Doubles, Ids, Ranking, window_of

if TYPE_CHECKING:
    from tasks.tracing import Influential

VERSION = 2
PARTS = ("init", "decay", "unrecorded", "examples")  # of ||z||^2
GRID = np.linspace(-1.25, 1.25, 201)  # of the ridge plots, cosines
SUM_BYTES = 64 * 2**20  # bytes of sums in memory; more examples read the contributions again
HISTOGRAM_BYTES = 256 * 2**20  # bytes of histograms in memory; more queries read the contributions again
HISTOGRAM_BINS = 2001
ABSENT = -1  # id where examples are fewer than requested

Arrays = dict[str, NDArray[np.generic]]


def influence_spec(contributions: StageSpec, asked: Tracing, aggregate: StageSpec | None) -> StageSpec:
    """Return the spec of the contributions summed over examples and classes.

    Parameters
    ----------
    aggregate : of the training, where the config derives it; class sums come from there where they follow from it
    """
    settings = asked.model_dump(mode="json", include={"k", "scores", "window", "ridges"})
    settings["scores"] = [score for score in settings["scores"] if score != "tracin"]  # a stage of its own
    defaults = Tracing(networks=("any",)).model_dump(mode="json", include={*settings})
    kept = without_defaults(settings, defaults)
    inputs = {"contributions": contributions} | ({} if aggregate is None else {"aggregate": aggregate})
    return INFLUENCE.spec(kept, inputs, place=settings, label=contributions.label)


def _opened(store: Store, spec: StageSpec) -> Contributions:
    """Return the contributions that a stage reads."""
    return Contributions(store, spec.inputs["contributions"], window_of(spec))


def _rankings(found: Contributions, spec: StageSpec) -> list[tuple[str, str]]:
    """Return the rankings, one per partition."""
    return found.rankings(list(spec.place["scores"]))


def _classes(store: Store, found: Contributions) -> list[int]:
    """Return the labels of a training's examples."""
    manifest = open_finished(store, found.spec.inputs["network"].inputs["data"])
    labels: list[int] = manifest.summary["splits"][found.train.split]["labels"]
    return labels


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per ranking; those of gamma come first and hold further arrays of each layer."""
    found = _opened(store, spec)
    n, rankings, layers = found.n_queries, _rankings(found, spec), len(found.layers)
    k = min(int(spec.place["k"]), len(found.examples))
    classes, epochs = len(_classes(store, found)), int(found.source.ledger["epoch"].max()) + 1

    def array(shape: tuple[int, ...], dtype: str, *axes: str, first: str = "layer") -> ArrayLayout:
        count = len(rankings) if first == "ranking" else layers
        return ArrayLayout((count, n, *shape), dtype, (first, "query", *axes), 1, 1)

    arrays = {"reference": array((), "float64", first="ranking")}
    for end in ("top", "bottom"):
        arrays[f"{end}_id"] = array((k,), "int64", "rank", first="ranking")
        arrays[f"{end}_sum"] = array((k,), "float64", "rank", first="ranking")
        arrays[f"{end}_label"] = array((k,), "int64", "rank", first="ranking")
    arrays["parts"] = array((len(PARTS),), "float64", "part")
    arrays["square"] = array((), "float64")
    arrays["class_gamma"] = array((epochs, classes), "float64", "epoch", "class")
    if single_class(found):
        shown = min(int(spec.place["ridges"]["classes"]), classes)
        arrays["ridge"] = array((shown, len(GRID)), "float32", "shown", "cosine")
        arrays["ridge_total"] = array((shown,), "float64", "shown")
        arrays["ridge_class"] = ArrayLayout((n, shown), "int64", ("query", "shown"), n, n)
    return Layout(len(rankings), arrays)


def single_class(found: Contributions) -> bool:
    """Return whether every step has examples of one class, as ridge plots need."""
    return bool((found.source.ledger["label"] >= 0).all())


def _partition(work: Work, number: int) -> None:
    """Rank the examples by one score; for gamma, describe the layer too."""
    stage = work.stage
    found = _opened(stage.store, stage.spec)
    layer, score = _rankings(found, stage.spec)[number]
    k = stage.layout.arrays["top_id"].shape[2]
    with stage.partition(number) as part:
        arrays = ranked(stage.store, found, (layer, score), k)
        if score == "gamma":
            arrays |= described(stage.store, found, layer, _summed(stage, found, layer))
            if "ridge" in stage.layout.arrays:
                arrays |= _ridges(stage, found, layer, classes_too=number == 0)
        for name, values in arrays.items():
            part.write(name, values if name == "ridge_class" else values[None])
        part.numbers.update(measured(layer=layer, score=score))


def ranked(store: Store, found: Contributions, ranking: Ranking, k: int) -> Arrays:
    """Return the k examples at both ends, by blocks of ids."""
    from tasks.tracing import first_of

    layer, score = ranking
    size = max(k, SUM_BYTES // (8 * found.n_queries))
    ends: dict[str, list[Influential]] = {"top": [], "bottom": []}
    for start in range(0, len(found.examples), size):
        sums = found.sums(found.examples[start : start + size], layer, score)
        ends["top"].append(sums.top(k))
        ends["bottom"].append(sums.bottom(k))
    arrays: Arrays = {"reference": found.whole(layer, score)[1]}
    manifest = found.spec.inputs["network"].inputs["data"]
    rows = positions(store, manifest.path, found.train.split)
    labels = rows.set_index("id")["label_given"]
    for end, parts in ends.items():
        best = first_of(parts, k, lowest=end == "bottom")
        arrays[f"{end}_id"], arrays[f"{end}_sum"] = best.ids, best.sums
        arrays[f"{end}_label"] = labels.loc[best.ids.ravel().tolist()].to_numpy(np.int64).reshape(best.ids.shape)
    return arrays


def _summed(stage: Stage, found: Contributions, layer: str) -> Summed | None:
    """Return the class sums of a layer from the aggregate, where it has them in fewer bytes than all steps."""
    aggregate = stage.spec.inputs.get("aggregate")
    if aggregate is None or sum_bytes(stage.store, aggregate, layer) >= found.step_bytes(layer):
        return None
    return summed_at_once(stage.store, found, layer, aggregate)


def described(store: Store, found: Contributions, layer: str, summed: Summed | None = None) -> Arrays:
    """Return the parts of ||z||^2, and gamma by epoch and class.

    Parameters
    ----------
    summed : these sums where they are known already; else every step is read
    """
    init, square = found.whole(layer, "gamma")
    parts = dict.fromkeys(PARTS, np.zeros(found.n_queries))
    parts["init"] = init
    if summed is not None:
        parts |= {"examples": summed.by_class.sum(axis=(1, 2)), "unrecorded": summed.unrecorded}
        by_class = summed.by_class
    else:
        by_class = _by_steps(store, found, layer, parts)
    return {"parts": np.stack([parts[name] for name in PARTS], axis=1), "square": square, "class_gamma": by_class}


def _by_steps(store: Store, found: Contributions, layer: str, parts: dict[str, Doubles]) -> Doubles:
    """Return gamma by epoch and class (Q, epochs, classes) from every step, and add the steps to the parts."""
    from tasks.tracing import ClassShare, shares_of_classes

    classes = np.array(_classes(store, found))
    when = found.source.ledger["epoch"].to_numpy(np.int64)
    by_class = ClassShare(found.n_queries, len(classes), int(when.max()) + 1)
    labels_of = _member_labels(store, found, classes)
    for steps, values, decay in found.chunks(layer):
        known = found.recorded[steps]
        parts["decay"] = parts["decay"] + decay.sum(axis=0)
        parts["examples"] = parts["examples"] + values[known].sum(axis=0)
        parts["unrecorded"] = parts["unrecorded"] + values[~known].sum(axis=0)
    for numbers, credited, members in found.credits(layer, "gamma"):
        by_class.update(credited.T, shares_of_classes(labels_of(members), len(classes)), when[numbers])
    return by_class.sums.transpose(0, 2, 1)


def _member_labels(store: Store, found: Contributions, classes: Ids) -> Callable[[Sequence[Ids]], list[Ids]]:
    """Return a function of arrays of ids that gives the classes of the examples, as indices of `classes`."""
    manifest = found.spec.inputs["network"].inputs["data"]
    rows = positions(store, manifest.path, found.train.split)
    order = np.argsort(rows["id"].to_numpy(np.int64))
    ids, labels = rows["id"].to_numpy(np.int64)[order], rows["label_given"].to_numpy(np.int64)[order]
    index = np.searchsorted(classes, labels)
    return lambda members: [index[np.searchsorted(ids, step)] for step in members]


def _ridges(stage: Stage, found: Contributions, layer: str, *, classes_too: bool) -> Arrays:
    """Return the densities of the cosines of each query's most probable classes, most probable first."""
    logits = open_finished(stage.store, found.spec.inputs["queries"]).read("logits")
    arrays = ridge_arrays(stage.store, found, layer, logits, stage.spec.place["ridges"])
    return arrays if classes_too else {name: values for name, values in arrays.items() if name != "ridge_class"}


def ridge_arrays(
    store: Store, found: Contributions, layer: str, logits: NDArray[np.generic], settings: Document
) -> Arrays:
    """Return the densities of the cosines of the most probable classes of each query (Q, shown, G), and their totals.

    Parameters
    ----------
    logits : (Q, C) of the queries
    settings : those of `tracing.ridges`
    """
    from tasks.tracing import RidgeHistogram

    classes = np.array(_classes(store, found))
    shown = min(int(settings["classes"]), len(classes))
    order = np.argsort(-logits.astype(np.float64)[:, classes], axis=1, kind="stable")[:, :shown]
    step_class = np.searchsorted(classes, found.source.ledger["label"].to_numpy(np.int64))
    step_class[~found.counted] = ABSENT
    densities = np.empty((found.n_queries, shown, len(GRID)), np.float32)
    totals = np.empty((found.n_queries, shown))
    size = max(1, HISTOGRAM_BYTES // (8 * len(classes) * HISTOGRAM_BINS))
    for first in range(0, found.n_queries, size):
        batch = slice(first, first + size)
        histogram = RidgeHistogram(len(order[batch]), len(classes), HISTOGRAM_BINS)
        for steps, cosine, _ in found.chunks(layer, "cosine"):
            norms = found.norms(layer, steps.start, steps.stop)
            histogram.update(cosine[:, batch].T, norms[:, batch].T, step_class[steps])
        asked = settings["bandwidth"], settings["kind"]
        densities[batch] = histogram.densities(GRID, *asked, classes=order[batch])
        totals[batch] = np.take_along_axis(histogram.totals, order[batch], axis=1)
    return {"ridge": densities, "ridge_total": totals, "ridge_class": classes[order]}


def _summary(stage: Stage) -> Document:
    """Return the meaning of the arrays' axes."""
    found = _opened(stage.store, stage.spec)
    rankings = _rankings(found, stage.spec)
    ridges = {**stage.spec.place["ridges"], "grid": GRID.tolist()}
    return meaning(stage.store, found, rankings) | {"queries": found.spec.inputs["queries"].path, "ridges": ridges}


def meaning(store: Store, found: Contributions, rankings: Sequence[Ranking]) -> Document:
    """Return the meaning of the arrays' axes."""
    return {
        "layers": found.layers,
        "kinds": [found.stage.summary["kinds"][layer] for layer in found.layers],
        "weights": [found.stage.summary["weights"][layer] for layer in found.layers],
        "rankings": [list(ranking) for ranking in rankings],
        "parts": list(PARTS),
        "decay_unknown_from": [found.decay_unknown_from(layer) for layer in found.layers],
        "classes": _classes(store, found),
        "steps": found.steps,
        "anchor": found.spec.place["anchor"],
    }


def _size(spec: StageSpec, survey: Survey) -> Size:
    contributions = spec.inputs["contributions"]
    training = contributions.inputs["network"]
    train, found = training_of(training), survey.data(training.inputs["data"])
    _check_window(spec, training, training_steps(training, found.summary)[1])
    n, units = count_queries(contributions.inputs["queries"], survey), len(contributions.place.get("units", ()))
    layers = len(recorded_layers(training, survey)) + units
    sums = train.epochs * len(found.split(train.split)["labels"])
    one = 48 * int(spec.place["k"]) + 8 * sums + 4 * int(spec.place["ridges"]["classes"]) * len(GRID)
    peak = 4 * SUM_BYTES + HISTOGRAM_BYTES + 8 * n * (8 * train.checkpoint_every + sums)
    if "aggregate" in spec.inputs:
        groups = len(found.split(train.split)["labels"]) + 1
        peak += 4 * INPUT_BYTES + 4 * (groups + 4) * state_bytes(survey.blank(training))
    return Size(layers * n * one, peak)


def _check_window(influence: StageSpec, training: StageSpec, steps: int) -> None:
    """Raise ValueError where the window does not credit any example."""
    record, (first, end) = training_of(training).record, influence.place["window"] or (0, steps)
    kept = (None if record is None else kept_steps(record)) or (lambda _: True)
    if not any(map(kept, range(first, min(end, steps)))):
        raise ValueError(
            f"tracing.window: expected steps that {training.label} records, found none in {first} to {end}; "
            f"it has {steps} steps"
        )


INFLUENCE = Step("influence", VERSION, _layout, _partition, _size, summary=_summary)
