"""The main figures of question 4: how class-specific those are who taught the answers, and how far to trust it."""

import pandas as pd

from tasks.report.measures import ACCURACY, measure_rows
from tasks.report.tracing.results import TracingResults

LAST = {
    "agreement_10": "top ten examples of the predicted class, last layer",
    "init_share": "part of the last layer's representation from the initial weights",
}


def tracing_measures(results: TracingResults) -> pd.DataFrame:
    """Return the main figures, and the evaluation of the explanations."""
    rows = []
    for row in results.networks.to_dict("records"):
        of = (str(row["network"]), int(row["seed"]))
        rows.append((*of, ACCURACY, "share", float(row["accuracy"])))
        mine = _of(results.layers, *of)
        whole = mine[~mine["unit"].astype(bool)] if "unit" in mine else mine
        for column, what in LAST.items():
            if column in whole and len(whole):
                rows.append((*of, what, "share", float(whole[column].iloc[-1])))
        evaluation = _of(results.evaluation, *of)
        for each in evaluation.drop_duplicates("measure").to_dict("records"):  # the score of the first row of each
            named = (each.get(name) for name in ("score", "layer"))
            where = ", ".join(name for name in named if isinstance(name, str) and name)
            rows.append((*of, f"{each['measure']}{f' ({where})' if where else ''}", "number", float(each["value"])))
    return measure_rows("tracing", rows)


def _of(frame: pd.DataFrame, network: str, seed: int) -> pd.DataFrame:
    """Return the rows of one network and seed."""
    return frame[(frame["network"] == network) & (frame["seed"] == seed)]
