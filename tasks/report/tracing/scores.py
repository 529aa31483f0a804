"""Sentences on scores: which of them beat the baselines, which to use for what, and whether derivatives are valid."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.report import formats

BASELINES = (
    *("same class", "nearest in pixels", "nearest in inputs", "nearest in features"),
    *("KNN-Shapley in pixels", "KNN-Shapley in inputs", "random"),
)
LOSS = "The summed training loss marks labels that are probably wrong."
VALID = 0.3  # least correlation of predicted and measured changes
VALIDITY, LDS = "validity", "LDS"
ALL_CONSTANT = "all constant"  # note of a correlation that no query has, since predictions or measurements are equal
USES = {  # what each score is for
    "counterfactual": "what the same training would answer without an example",
    "tracin": "what lowered a query's loss",
    "logit": "what raised the predicted class's logit step by step",
    "gamma": "what shaped the representation of a layer",
}


def score_sentences(evaluation: pd.DataFrame) -> Iterable[str]:
    """Say which scores beat the baselines at predicting retrainings, and what each is for.

    Parameters
    ----------
    evaluation : rows of one network and seed, as `TracingResults` describes them
    """
    if "score" not in evaluation:
        return
    known = False
    for measure in dict.fromkeys(evaluation["measure"]):
        rows = evaluation[(evaluation["measure"] == measure) & np.isfinite(evaluation["value"].astype(float))]
        if not str(measure).startswith(LDS) or not rows["score"].isin(BASELINES).any():
            continue
        known = True
        yield _against_baselines(str(measure), rows)
    if known:
        unfit = set(rough(evaluation)["score"])
        used = [name for name in USES if (evaluation["score"] == name).any() and name not in unfit]
        yield " ".join([*(f"{name} shows {USES[name]}." for name in used), LOSS])


def rough(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of scores that do not predict retrainings; not those that could not be compared."""
    measured = (evaluation["measure"] == VALIDITY) & (evaluation["note"] != ALL_CONSTANT)
    return evaluation[measured & ~(evaluation["value"].astype(float) >= VALID)]


def validity_sentences(evaluation: pd.DataFrame) -> Iterable[str]:
    """Say whether the derivatives predict retrainings, and what cures a training that is too rough."""
    for _, row in evaluation[evaluation["measure"] == VALIDITY].iterrows():
        value = float(row["value"])
        if row["note"] == ALL_CONSTANT:
            yield (
                "Predicted and measured changes without a few examples cannot be compared, since one of them is the "
                "same in every retraining: leave out more examples (`tracing.counterfactual.left_out`)."
            )
            continue
        if value >= VALID:
            yield (
                f"Predicted and measured changes without a few examples correlate by {formats.measure(value)}: the "
                "derivatives describe this training."
            )
            continue
        found = f"correlate by {formats.measure(value)} only" if np.isfinite(value) else "cannot be compared"
        yield (
            f"Predicted and measured changes without a few examples {found}: this training is too rough for the "
            "counterfactual score. A smaller or decaying learning rate, larger batches, a warm-up or a smooth "
            "activation make it smoother."
        )


def _against_baselines(measure: str, rows: pd.DataFrame) -> str:
    """Compare the best row of each score with the best baseline."""
    best = rows.groupby("score", sort=False)["value"].max().astype(float)
    baselines, scores = best[best.index.isin(BASELINES)], best[~best.index.isin(BASELINES)]
    name, bar = str(baselines.idxmax()), float(baselines.max())
    above = scores[scores > bar].sort_values(ascending=False)
    below = scores[scores <= bar].sort_values(ascending=False)
    parts = []
    if len(above):
        parts.append(f"{_listed(above)} beat{'s' if len(above) == 1 else ''} every baseline")
    if len(below):
        parts.append(f"{_listed(below)} do{'es' if len(below) == 1 else ''} not")
    if not parts:
        return f"{measure}: the best baseline is {name} ({formats.measure(bar)})."
    if not len(above):
        parts = [f"{_listed(below)} do{'es' if len(below) == 1 else ''} not beat the baselines"]
    return f"{measure}: {'; '.join(parts)}. The best baseline is {name} ({formats.measure(bar)})."


def _listed(scores: pd.Series) -> str:
    """List scores with their values."""
    named = [f"{name} ({formats.measure(float(value))})" for name, value in scores.items()]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
