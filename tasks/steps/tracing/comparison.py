"""The comparison stage: scores of the whole network and baselines, by the same checks.

Baselines know nothing of the training: the class, neighbours in pixels and in features, chance. A score that they beat
says little about single examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device
from tasks.steps.tracing.measured import measured_unit, score_label
from tasks.steps.tracing.queries import count_queries
from tasks.steps.tracing.retraining import subset
from tasks.steps.tracing.scores import (
    COUNTERFACTUAL_SCORE,
    SCORES,
    Compared,
    count_numbers,
    parameters_of_inputs,
    scores_of,
    sign_of,
)

if TYPE_CHECKING:
    import torch

VERSION = 1
KEPT = 20  # examples at either end of each query
ORDERS = {"retraining": "LDS", "same_order": "LDS, same order"}  # check by the input with its retrainings

Doubles = NDArray[np.float64]


def comparison_spec(
    queries: StageSpec, training: StageSpec, scores: Mapping[str, StageSpec], tests: Mapping[str, StageSpec]
) -> StageSpec:
    """Return the spec of the comparison.

    Parameters
    ----------
    scores : stages `counterfactual` and `tracin`, as far as the config asks for them
    tests : retrainings: `retraining` (new seeds), `same_order`, and `left_out` for the counterfactual
    """
    inputs = {"network": training, "queries": queries, **scores, **tests}
    place = dict(queries.place)
    parameters: Document = {"network": queries.parameters["network"], **parameters_of_inputs(training)}
    return COMPARISON.spec(parameters, inputs, digests=queries.digests, place=place, label=training.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per score, with the examples at both ends of each query."""
    n = int(open_finished(store, spec.inputs["queries"]).summary["queries"])
    training = spec.inputs["network"]
    examples = len(positions(store, training.inputs["data"].path, training_of(training).split))
    scores, k = len(scores_of(spec)), min(KEPT, examples)
    arrays = {}
    for end in ("top", "bottom"):
        for name, dtype in (("id", "int64"), ("value", "float64"), ("label", "int64")):
            arrays[f"{end}_{name}"] = ArrayLayout((scores, n, k), dtype, ("score", "query", "rank"), 1, 1)
    return Layout(scores, arrays)


def _partition(work: Work, number: int) -> None:
    """Make a score, and check it."""
    stage = work.stage
    made = Compared(stage.store, stage.spec, choose_device(work.device))
    name = scores_of(stage.spec)[number]
    score, marks = SCORES[name](made)
    finite = bool(np.isfinite(score).all())
    k = stage.layout.arrays["top_id"].shape[2]
    with stage.partition(number) as part:
        for end, sign in (("top", -1), ("bottom", 1)):
            order = np.argsort(sign * score, axis=1, kind="stable")[:, :k]
            part.write(f"{end}_id", made.rows["id"].to_numpy(np.int64)[order][None])
            part.write(f"{end}_value", np.take_along_axis(score, order, axis=1)[None])
            part.write(f"{end}_label", made.labels[order][None])
        checks = _checks(made, score, marks, _retrainings_for(stage.spec, name)) if finite else {}
        if name == COUNTERFACTUAL_SCORE and "left_out" in stage.spec.inputs:
            checks["validity"] = _validity(made, score) if finite else {"value": None, "spread": None, "constant": 0}
        part.numbers.update(measured(score=name, finite=finite, checks=checks))


def _retrainings_for(spec: StageSpec, name: str) -> dict[str, str]:
    """Return the checks by retrainings of a score; these measure answers, so there are none for a unit's score."""
    about_unit = name in spec.inputs and measured_unit(spec.inputs[name]) is not None
    return {} if about_unit else {role: check for role, check in ORDERS.items() if role in spec.inputs}


def _checks(made: Compared, score: Doubles, marks: Doubles | None, orders: Mapping[str, str]) -> Document:
    """Return the metrics of a score (Q, N); `marks` (N,) are high for labels that are probably wrong."""
    from tasks.tracing.evaluation import class_agreement, linear_datamodelling_score, mislabel_auc

    found: Document = {}
    for role, check in orders.items():
        margins, held = _retrained(made, made.spec.inputs[role])
        result = linear_datamodelling_score(held, score, margins)
        spread = float(result.per_query.std())
        found[check] = {"value": result.mean, "spread": spread, "constant": result.n_constant}
    order = np.argsort(-score, axis=1, kind="stable")
    for k in (1, 10):
        if k <= score.shape[1]:
            value = class_agreement(made.labels[order[:, :k]], made.queries.read("logits").argmax(axis=1))
            found[f"class agreement @{k}"] = {"value": value, "spread": None, "constant": 0}
    if marks is not None and made.flipped is not None:
        found["mislabel AUC"] = {"value": mislabel_auc(marks, made.flipped, "high"), "spread": None, "constant": 0}
    return found


def _retrained(made: Compared, spec: StageSpec) -> tuple[Doubles, NDArray[np.bool_]]:
    """Return the margins of retrainings (m, R, Q), and which examples each subset holds (m, N)."""
    subsets, repeats = int(spec.parameters["subsets"]), int(spec.parameters["retrainings"])
    n = len(made.rows)
    held = np.zeros((subsets, n), bool)
    for index, row in enumerate(held):
        row[subset(spec, index, n)] = True
    margins = open_finished(made.store, spec).read("margin").astype(np.float64)
    return margins.reshape(subsets, repeats, -1), held


def _validity(made: Compared, score: Doubles) -> Document:
    """Return the correlation of predicted and measured changes without a few examples, mean over queries."""
    from tasks.tracing.evaluation import rank_correlation

    margins, held = _retrained(made, made.spec.inputs["left_out"])
    sign = sign_of(made.spec.inputs[COUNTERFACTUAL_SCORE])
    predicted = -score @ (~held).T.astype(np.float64)
    result = rank_correlation(predicted, sign * margins[:, 0].T)
    return {"value": result.mean, "spread": float(result.per_query.std()), "constant": result.n_constant}


def _summary(stage: Stage) -> Document:
    """Return the checks of each score, and the noise ceiling of retrainings from new seeds."""
    from tasks.tracing.evaluation import noise_ceiling

    rows = []
    for number, score in enumerate(scores_of(stage.spec)):
        record = stage.marker(number)
        assert record is not None, number
        label, numbers = score_label(stage.spec, score), record["numbers"]
        rows.append({"score": label, "finite": numbers["finite"], "checks": numbers["checks"]})
    found: Document = {"rows": rows, "ceiling": None, "queries": stage.layout.arrays["top_id"].shape[1]}
    spec = stage.spec.inputs.get("retraining")
    if spec is not None and int(spec.parameters["retrainings"]) > 1:
        subsets, repeats = int(spec.parameters["subsets"]), int(spec.parameters["retrainings"])
        margins = open_finished(stage.store, spec).read("margin").astype(np.float64)
        found["ceiling"] = noise_ceiling(margins.reshape(subsets, repeats, -1)).ceiling
    return found


def _size(spec: StageSpec, survey: Survey) -> Size:
    training = spec.inputs["network"]
    n = survey.data(training.inputs["data"]).count(training_of(training).split)
    queries = count_queries(spec.inputs["queries"], survey)

    def pixels(model: object, example: torch.Tensor, images: torch.Tensor) -> int:
        return count_numbers(example)

    peak = 6 * 8 * n * queries + 3 * 8 * n * survey.look(training, "pixels of an input", pixels) + MEMORY_SAMPLES
    return Size(48 * len(scores_of(spec)) * queries * KEPT, peak)


COMPARISON = Step("comparison", VERSION, _layout, _partition, _size, summary=_summary, network=True)
