"""The results of question 2: its tables, histograms and feature maps, from finished stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.decomposition import HeadScores, measure_overlap, share_of_histogram
from tasks.figures.overlay import overlay
from tasks.figures.views import spread_out
from tasks.report.decomposition.results import COLUMNS, DecompositionResults, FeatureMapRow, Histogram, Overlap
from tasks.steps.decomposition.ablation import read_accuracies
from tasks.steps.decomposition.cost import read_times
from tasks.steps.decomposition.coverage import read_coverage
from tasks.steps.decomposition.decomposed_training import read_curves
from tasks.steps.decomposition.gallery import KINDS
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.plan import Decomposed
from tasks.steps.decomposition.scores import HISTOGRAM, read_scores

HISTOGRAMS = 10  # classes whose histogram is shown

Row = dict[str, object]
Ids = NDArray[np.int64]


def decomposition_results(store: Store, found: Sequence[Decomposed]) -> DecompositionResults:
    """Return what the page is made of."""
    answers = [_Answer.of(store, one) for one in found]
    tables = {
        "networks": _network,
        "grid": _grid,
        "controls": _controls,
        "coverage": _coverage,
        "classes": _classes,
        "sample_need": _sample_need,
        "ablation": _ablation,
        "retraining": _retraining,
        "head_times": _head_times,
        "gates": _gates,
    }
    rows = {
        name: [{**answer.keys, **row} for answer in answers for row in make(store, answer)]
        for name, make in tables.items()
    }
    return DecompositionResults(
        **{name: pd.DataFrame(table, columns=list(COLUMNS[name])) for name, table in rows.items()},
        histograms=tuple(shown for answer in answers for shown in _histograms(answer)),
        overlaps=tuple(_overlap(answer) for answer in answers),
        refused=tuple(_refused(store, answers)),
        gallery=tuple(row for answer in answers if answer.is_first(answers) for row in _gallery(store, answer)),
    )


@dataclass(frozen=True)
class _Answer:
    """One network and seed with what most tables need."""

    one: Decomposed
    learn: FinishedStage
    evaluate: FinishedStage
    names: dict[str, str]
    counts: Ids  # (C, d)
    sets: Ids  # (C, k2)
    present: Ids  # classes that have images
    full: HeadScores

    @classmethod
    def of(cls, store: Store, one: Decomposed) -> "_Answer":
        """Read it."""
        histogram, k2 = open_finished(store, one.histogram), _k2(one)
        learn, evaluate = open_finished(store, one.learn), open_finished(store, one.evaluate)
        names = open_finished(store, one.learn.inputs["data"]).summary["class_names"]
        counts, present = histogram.read("counts").astype(np.int64), np.flatnonzero(histogram.read("images"))
        (full,) = read_scores(open_finished(store, one.full))
        return cls(one, learn, evaluate, names, counts, read_sets(store, one.histogram, k2), present, full)

    @property
    def keys(self) -> Row:
        """What every row of a table begins with."""
        return {"network": self.one.network, "seed": self.one.seed}

    @property
    def ties(self) -> NDArray[np.bool_]:
        """Whether the last chosen count of a class equals the next one, (C,)."""
        ordered, k2 = -np.sort(-self.counts, axis=1), self.sets.shape[1]
        if k2 == ordered.shape[1]:
            return np.zeros(len(ordered), bool)
        return np.asarray(ordered[:, k2 - 1] == ordered[:, k2])

    def is_first(self, others: Sequence["_Answer"]) -> bool:
        """Say whether it is the first seed of its network."""
        return next(other for other in others if other.one.network == self.one.network) is self

    def name(self, label: int) -> str:
        """Return a label's name, or the label where it has none."""
        return self.names.get(str(label), str(label))


def _k2(one: Decomposed) -> int:
    """Return the main number of features kept per class."""
    return next(iter(one.grid))[1]


def _scores(store: Store, spec: StageSpec, full: HeadScores) -> Row:
    """Return accuracy, its deviation over draws, agreement and r_A of a stage's heads."""
    heads = read_scores(open_finished(store, spec))
    accuracies = np.array([head.accuracy for head in heads])
    return {
        "draws": len(heads),
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std(ddof=1)) if len(heads) > 1 else np.nan,
        "agreement": float(np.mean([head.agreement for head in heads])),
        "ratio": float(accuracies.mean() / full.accuracy) if full.accuracy else np.nan,
    }


def _network(store: Store, answer: _Answer) -> Iterator[Row]:
    one, cost = answer.one, open_finished(store, answer.one.cost).summary
    (k1, k2), main = next(iter(one.grid)), _scores(store, next(iter(one.grid.values())), answer.full)
    overlap = measure_overlap(answer.sets[answer.present], answer.counts.shape[1])
    network, place = one.learn.parameters["network"], one.histogram.place
    yield {
        "model": network["model"],
        "depth": cost["depth"],
        "n_classes": len(answer.present),
        "n_outputs": len(answer.counts),
        "n_features": answer.counts.shape[1],
        "k1": k1,
        "k2": k2,
        "rank_by": place["rank_by"],
        "group_by": place["group_by"],
        "n_learn": answer.learn.summary["samples"],
        "n_evaluate": answer.evaluate.summary["samples"],
        "learn": one.learn.parameters["split"],
        "evaluate": one.evaluate.parameters["split"],
        "a_full": answer.full.accuracy,
        "a_decomposed": main["accuracy"],
        "ratio": main["ratio"],
        "agreement": main["agreement"],
        "ties": int(answer.ties[answer.present].sum()),
        "signed": open_finished(store, one.histogram).summary["signed"],
        "overlap_mean": overlap.mean,
        "union": overlap.union,
        "preprocessing": _shown(network["preprocessing"]),
        "head_share": cost["head"] / cost["total"],
        "macs_full": cost["head"],
        "macs_decomposed": cost["decomposed"],
    }


def _shown(preprocessing: Document) -> str:
    """Return preprocessing in a line."""
    return ", ".join(f"{key} {value}" for key, value in preprocessing.items()) or "pixels on 0..1"


def _grid(store: Store, answer: _Answer) -> Iterator[Row]:
    for (k1, k2), spec in answer.one.grid.items():
        yield {"k1": k1, "k2": k2, **_scores(store, spec, answer.full)}


def _controls(store: Store, answer: _Answer) -> Iterator[Row]:
    main = next(iter(answer.one.grid.values()))
    for method, spec in {HISTOGRAM: main, **answer.one.controls}.items():
        yield {"method": method, "k": _k2(answer.one), **_scores(store, spec, answer.full)}


def _coverage(store: Store, answer: _Answer) -> Iterator[Row]:
    found = read_coverage(store, answer.one.coverage)
    l1, logit, own = found.l1_shares(), found.contribution_shares(), found.top_shares()
    histogram = share_of_histogram(answer.counts, answer.sets)
    for label in answer.present.tolist():
        yield {
            "class_name": answer.name(label),
            "n": int(found.images[label, 0]),
            "l1_share": l1[label],
            "histogram_share": histogram[label],
            "logit_share": logit[label],
            "own_top_share": own[label, 0] if found.tops else np.nan,
        }


def _classes(store: Store, answer: _Answer) -> Iterator[Row]:
    (main,) = read_scores(open_finished(store, next(iter(answer.one.grid.values()))))
    full, decomposed, ties = answer.full.class_accuracies(), main.class_accuracies(), answer.ties
    for label in answer.present.tolist():
        chosen = answer.sets[label]
        yield {
            "class_name": answer.name(label),
            "a_full": full[label],
            "a_decomposed": decomposed[label],
            "tie": bool(ties[label]),
            "indices": ", ".join(map(str, chosen.tolist())),
            "counts": ", ".join(map(str, answer.counts[label, chosen].tolist())),
        }


def _sample_need(store: Store, answer: _Answer) -> Iterator[Row]:
    for n, spec in answer.one.need.items():
        sets = read_sets(store, spec, _k2(answer.one))
        shared = [np.isin(sets[label], answer.sets[label]).mean() for label in answer.present.tolist()]
        scores = _scores(store, answer.one.need_scores[n], answer.full)
        yield {"n_images": n, "overlap": float(np.mean(shared)), "accuracy": scores["accuracy"]}


def _ablation(store: Store, answer: _Answer) -> Iterator[Row]:
    sets, d = answer.sets[answer.present], answer.counts.shape[1]
    for (noise, scope), spec in answer.one.ablations.items():
        size = len(np.unique(sets)) if scope == "union" else sets.shape[1]
        for which, accuracies in read_accuracies(open_finished(store, spec)).items():
            if which == "equal-size" and 2 * size > d:  # there are not as many others
                continue
            spread = float(accuracies.std(ddof=1)) if len(accuracies) > 1 else np.nan
            stated = {"draws": len(accuracies), "accuracy": float(accuracies.mean()), "accuracy_std": spread}
            yield {"noise": noise, "scope": scope, "which": which, **stated}


def _retraining(store: Store, answer: _Answer) -> Iterator[Row]:
    for scope, spec in answer.one.retrained.items():
        for row in read_curves(store, spec).to_dict("records"):
            yield {"scope": scope, **{str(key): value for key, value in row.items()}}


def _head_times(store: Store, answer: _Answer) -> Iterator[Row]:
    yield from read_times(store, answer.one.cost)


def _gates(store: Store, answer: _Answer) -> Iterator[Row]:
    if answer.one.gates is None or answer.one.gates_scores is None:
        return
    stage = open_finished(store, answer.one.gates)
    sets = stage.read("indices")
    shared = [np.isin(sets[label], answer.sets[label]).mean() for label in answer.present.tolist()]
    yield {
        **{key: stage.summary[key] for key in ("split", "std_accuracy", "csg_accuracy", "mean_gate")},
        "overlap": float(np.mean(shared)),
        "a_decomposed": _scores(store, answer.one.gates_scores, answer.full)["accuracy"],
    }


def _histograms(answer: _Answer) -> Iterator[Histogram]:
    """Yield the histograms of a few classes."""
    for index in spread_out(len(answer.present), HISTOGRAMS):
        label = int(answer.present[index])
        counts = answer.counts[label]
        frequencies = counts / max(1, counts.sum())
        yield Histogram(answer.one.network, answer.one.seed, answer.name(label), frequencies, answer.sets[label])


def _overlap(answer: _Answer) -> Overlap:
    """Return how many features each two classes share."""
    found = measure_overlap(answer.sets[answer.present], answer.counts.shape[1])
    names = tuple(answer.name(label) for label in answer.present.tolist())
    return Overlap(answer.one.network, answer.one.seed, names, found.matrix)


def _refused(store: Store, answers: Sequence[_Answer]) -> Iterator[tuple[str, str]]:
    """Yield the networks of which there can be no pictures, and why."""
    for answer in answers:
        if answer.one.gallery is not None and answer.is_first(answers):
            reason = str(open_finished(store, answer.one.gallery).summary["refused"])
            if reason:
                yield answer.one.network, reason


def _gallery(store: Store, answer: _Answer) -> Iterator[FeatureMapRow]:
    """Yield the pictures of a gallery stage, if it has any."""
    stage = None if answer.one.gallery is None else open_finished(store, answer.one.gallery)
    if stage is None or not stage.layout.arrays:
        return
    read = {name: stage.read(name) for name in stage.layout.arrays}
    for i, image in enumerate(read["image"].astype(np.uint8)):
        heats = zip(KINDS, read["maps"][i].astype(np.float32), strict=True)
        shown = {kind: overlay(image, heat) for kind, heat in heats}
        yield FeatureMapRow(
            network=answer.one.network,
            image=image,
            sample_id=int(read["sample_id"][i]),
            split=str(answer.one.evaluate.parameters["split"]),
            true_class=answer.name(int(read["label"][i])),
            predicted=answer.name(int(read["predicted"][i])),
            **shown,
        )
