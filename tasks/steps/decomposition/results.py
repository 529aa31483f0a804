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
from tasks.steps.common.standing import most_frequent
from tasks.steps.decomposition.ablation import read_accuracies
from tasks.steps.decomposition.cost import read_times
from tasks.steps.decomposition.coverage import read_coverage
from tasks.steps.decomposition.decomposed_training import read_curves
from tasks.steps.decomposition.feature_results import feature_rows, top_images
from tasks.steps.decomposition.gallery import KINDS
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.plan import Decomposed
from tasks.steps.decomposition.scores import HISTOGRAM, read_scores

HISTOGRAMS = 10  # number of classes with a histogram on the page

Row = dict[str, object]
Ids = NDArray[np.int64]


def decomposition_results(store: Store, answers: Sequence[Decomposed]) -> DecompositionResults:
    """Return the tables and pictures of question 2's page."""
    all_opened = [_Opened.of(store, answer) for answer in answers]
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
        "features": _features,
    }
    rows = {
        name: [{**opened.keys, **row} for opened in all_opened for row in make(store, opened)]
        for name, make in tables.items()
    }
    return DecompositionResults(
        **{name: pd.DataFrame(table, columns=list(COLUMNS[name])) for name, table in rows.items()},
        histograms=tuple(shown for opened in all_opened for shown in _histograms(opened)),
        overlaps=tuple(_overlap(opened) for opened in all_opened),
        refused=tuple(_refused(store, all_opened)),
        gallery=tuple(row for opened in all_opened if opened.is_first(all_opened) for row in _gallery(store, opened)),
        top_images=tuple(images for one in all_opened for images in top_images(store, one.answer, one.names)),
    )


@dataclass(frozen=True)
class _Opened:
    """One network and seed, with the arrays that most tables need."""

    answer: Decomposed
    learn: FinishedStage
    evaluate: FinishedStage
    names: dict[str, str]
    counts: Ids  # (C, d)
    sets: Ids  # (C, k2)
    present: Ids  # classes that have images
    full: HeadScores

    @classmethod
    def of(cls, store: Store, answer: Decomposed) -> "_Opened":
        """Read one network and seed of question 2 from the store."""
        histogram, k2 = open_finished(store, answer.histogram), _k2(answer)
        learn, evaluate = open_finished(store, answer.learn), open_finished(store, answer.evaluate)
        names = open_finished(store, answer.learn.inputs["data"]).summary["class_names"]
        counts, present = histogram.read("counts").astype(np.int64), np.flatnonzero(histogram.read("images"))
        (full,) = read_scores(open_finished(store, answer.full))
        return cls(answer, learn, evaluate, names, counts, read_sets(store, answer.histogram, k2), present, full)

    @property
    def keys(self) -> Row:
        """Return the first columns of every row of a table."""
        return {"network": self.answer.network, "seed": self.answer.seed}

    @property
    def ties(self) -> NDArray[np.bool_]:
        """Return (C,), whether the last chosen count of a class equals the next one."""
        ordered, k2 = -np.sort(-self.counts, axis=1), self.sets.shape[1]
        if k2 == ordered.shape[1]:
            return np.zeros(len(ordered), bool)
        return np.asarray(ordered[:, k2 - 1] == ordered[:, k2])

    def is_first(self, others: Sequence["_Opened"]) -> bool:
        """Return whether it is the first seed of its network."""
        return next(other for other in others if other.answer.network == self.answer.network) is self

    def name(self, label: int) -> str:
        """Return the name of a label, or the label without a name."""
        return self.names.get(str(label), str(label))


def _k2(answer: Decomposed) -> int:
    """Return the main number of features kept per class."""
    return next(iter(answer.grid))[1]


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


def _network(store: Store, opened: _Opened) -> Iterator[Row]:
    answer, cost = opened.answer, open_finished(store, opened.answer.cost).summary
    (k1, k2), main = next(iter(answer.grid)), _scores(store, next(iter(answer.grid.values())), opened.full)
    overlap = measure_overlap(opened.sets[opened.present], opened.counts.shape[1])
    network, place = answer.learn.parameters["network"], answer.histogram.place
    yield {
        "model": network["model"],
        "depth": cost["depth"],
        "n_classes": len(opened.present),
        "n_outputs": len(opened.counts),
        "n_features": opened.counts.shape[1],
        "k1": k1,
        "k2": k2,
        "rank_by": place["rank_by"],
        "group_by": place["group_by"],
        "n_learn": opened.learn.summary["samples"],
        "n_evaluate": opened.evaluate.summary["samples"],
        "learn": answer.learn.parameters["split"],
        "evaluate": answer.evaluate.parameters["split"],
        "a_full": opened.full.accuracy,
        "chance": most_frequent(opened.evaluate.read("label")),
        "a_decomposed": main["accuracy"],
        "ratio": main["ratio"],
        "agreement": main["agreement"],
        "ties": int(opened.ties[opened.present].sum()),
        "signed": open_finished(store, answer.histogram).summary["signed"],
        "overlap_mean": overlap.mean,
        "union": overlap.union,
        "preprocessing": _shown(network["preprocessing"]),
        "head_share": cost["head"] / cost["total"],
        "macs_full": cost["head"],
        "macs_decomposed": cost["decomposed"],
    }


def _shown(preprocessing: Document) -> str:
    """Return preprocessing as one line."""
    return ", ".join(f"{key} {value}" for key, value in preprocessing.items()) or "pixels on 0..1"


def _grid(store: Store, opened: _Opened) -> Iterator[Row]:
    for (k1, k2), spec in opened.answer.grid.items():
        yield {"k1": k1, "k2": k2, **_scores(store, spec, opened.full)}


def _controls(store: Store, opened: _Opened) -> Iterator[Row]:
    main = next(iter(opened.answer.grid.values()))
    for method, spec in {HISTOGRAM: main, **opened.answer.controls}.items():
        yield {"method": method, "k": _k2(opened.answer), **_scores(store, spec, opened.full)}


def _coverage(store: Store, opened: _Opened) -> Iterator[Row]:
    found = read_coverage(store, opened.answer.coverage)
    l1, logit, own = found.l1_shares(), found.contribution_shares(), found.top_shares()
    histogram = share_of_histogram(opened.counts, opened.sets)
    for label in opened.present.tolist():
        yield {
            "class_name": opened.name(label),
            "n": int(found.images[label, 0]),
            "l1_share": l1[label],
            "histogram_share": histogram[label],
            "logit_share": logit[label],
            "own_top_share": own[label, 0] if found.tops else np.nan,
        }


def _classes(store: Store, opened: _Opened) -> Iterator[Row]:
    (main,) = read_scores(open_finished(store, next(iter(opened.answer.grid.values()))))
    full, decomposed, ties = opened.full.class_accuracies(), main.class_accuracies(), opened.ties
    for label in opened.present.tolist():
        chosen = opened.sets[label]
        yield {
            "class_name": opened.name(label),
            "a_full": full[label],
            "a_decomposed": decomposed[label],
            "tie": bool(ties[label]),
            "indices": ", ".join(map(str, chosen.tolist())),
            "counts": ", ".join(map(str, opened.counts[label, chosen].tolist())),
        }


def _sample_need(store: Store, opened: _Opened) -> Iterator[Row]:
    for n, spec in opened.answer.need.items():
        sets = read_sets(store, spec, _k2(opened.answer))
        shared = [np.isin(sets[label], opened.sets[label]).mean() for label in opened.present.tolist()]
        scores = _scores(store, opened.answer.need_scores[n], opened.full)
        yield {"n_images": n, "overlap": float(np.mean(shared)), "accuracy": scores["accuracy"]}


def _ablation(store: Store, opened: _Opened) -> Iterator[Row]:
    sets, d = opened.sets[opened.present], opened.counts.shape[1]
    for (noise, scope), spec in opened.answer.ablations.items():
        size = len(np.unique(sets)) if scope == "union" else sets.shape[1]
        for which, accuracies in read_accuracies(open_finished(store, spec)).items():
            if which == "equal-size" and 2 * size > d:  # too few other features
                continue
            spread = float(accuracies.std(ddof=1)) if len(accuracies) > 1 else np.nan
            stated = {"draws": len(accuracies), "accuracy": float(accuracies.mean()), "accuracy_std": spread}
            yield {"noise": noise, "scope": scope, "which": which, **stated}


def _retraining(store: Store, opened: _Opened) -> Iterator[Row]:
    for scope, spec in opened.answer.retrained.items():
        for row in read_curves(store, spec).to_dict("records"):
            yield {"scope": scope, **{str(key): value for key, value in row.items()}}


def _head_times(store: Store, opened: _Opened) -> Iterator[Row]:
    yield from read_times(store, opened.answer.cost)


def _gates(store: Store, opened: _Opened) -> Iterator[Row]:
    if opened.answer.gates is None or opened.answer.gates_scores is None:
        return
    stage = open_finished(store, opened.answer.gates)
    sets = stage.read("indices")
    shared = [np.isin(sets[label], opened.sets[label]).mean() for label in opened.present.tolist()]
    yield {
        **{key: stage.summary[key] for key in ("split", "std_accuracy", "csg_accuracy", "mean_gate")},
        "overlap": float(np.mean(shared)),
        "a_decomposed": _scores(store, opened.answer.gates_scores, opened.full)["accuracy"],
    }


def _features(store: Store, opened: _Opened) -> Iterator[Row]:
    yield from feature_rows(store, opened.answer, opened.names)


def _histograms(opened: _Opened) -> Iterator[Histogram]:
    """Yield the histograms of a few classes."""
    for index in spread_out(len(opened.present), HISTOGRAMS):
        label = int(opened.present[index])
        counts = opened.counts[label]
        frequencies = counts / max(1, counts.sum())
        yield Histogram(opened.answer.network, opened.answer.seed, opened.name(label), frequencies, opened.sets[label])


def _overlap(opened: _Opened) -> Overlap:
    """Return the number of features that each pair of classes shares."""
    found = measure_overlap(opened.sets[opened.present], opened.counts.shape[1])
    names = tuple(opened.name(label) for label in opened.present.tolist())
    return Overlap(opened.answer.network, opened.answer.seed, names, found.matrix)


def _refused(store: Store, all_opened: Sequence[_Opened]) -> Iterator[tuple[str, str]]:
    """Yield the networks without pictures, with the reason."""
    for opened in all_opened:
        if opened.answer.gallery is not None and opened.is_first(all_opened):
            reason = str(open_finished(store, opened.answer.gallery).summary["refused"])
            if reason:
                yield opened.answer.network, reason


def _gallery(store: Store, opened: _Opened) -> Iterator[FeatureMapRow]:
    """Yield the pictures of a gallery stage, if any."""
    stage = None if opened.answer.gallery is None else open_finished(store, opened.answer.gallery)
    if stage is None or not stage.layout.arrays:
        return
    read = {name: stage.read(name) for name in stage.layout.arrays}
    for i, image in enumerate(read["image"].astype(np.uint8)):
        heats = zip(KINDS, read["maps"][i].astype(np.float32), strict=True)
        shown = {kind: overlay(image, heat) for kind, heat in heats}
        yield FeatureMapRow(
            network=opened.answer.network,
            image=image,
            sample_id=int(read["sample_id"][i]),
            split=str(opened.answer.evaluate.parameters["split"]),
            true_class=opened.name(int(read["label"][i])),
            predicted=opened.name(int(read["predicted"][i])),
            **shown,
        )
