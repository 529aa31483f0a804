"""A decomposition page of one network, and the sentences and claims that it makes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tasks.report.decomposition.claims import claims_table
from tasks.report.decomposition.findings import network_findings
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.formats import NBSP

KEY = {"network": "small", "seed": 0}
NETWORK: dict[str, object] = {
    **{"model": "small-cnn", "depth": 20, "n_classes": 10, "n_outputs": 10, "n_features": 64},
    **{"k1": "5", "k2": 5, "rank_by": "abs"},
    **{"group_by": "label", "n_learn": 50_000, "n_evaluate": 10_000, "learn": "train", "evaluate": "val"},
    **{"a_full": 0.9, "a_decomposed": 0.855, "ratio": 0.95, "agreement": 0.93, "ties": 0, "signed": False},
    **{"overlap_mean": 0.2, "union": 32, "preprocessing": "own", "head_share": 0.01, "macs_full": 640},
    "macs_decomposed": 50,
}


def frame(rows: Mapping[str, Any]) -> pd.DataFrame:
    """A table of the one network."""
    return pd.DataFrame(KEY | dict(rows))


def page_of(network: Mapping[str, object] | None = None, **tables: Any) -> DecompositionResults:
    """A page of one network; a network differs from `NETWORK` in what is given."""
    about = KEY | NETWORK | dict(network or {})
    return DecompositionResults(networks=pd.DataFrame([about]), **tables).completed()


def say(page: DecompositionResults) -> dict[str, list[str]]:
    """Return the sentences under each word, with plain spaces."""
    found: dict[str, list[str]] = {}
    for finding in network_findings(page):
        found.setdefault(finding.about, []).append(finding.text.replace(NBSP, " "))
    return found


def claims(page: DecompositionResults) -> dict[str, str]:
    """Return the row of the table of claims."""
    table = claims_table([page])
    assert table is not None
    return {c.title: cell.replace(NBSP, " ") for c, cell in zip(table.columns, table.rows[0], strict=True)}


def noise(influential: float, others: float, equal: float, name: str = "standard") -> pd.DataFrame:
    """One noise, scope label."""
    rows = {"noise": name, "scope": "label", "which": ["influential", "others", "equal-size"], "draws": 5}
    return frame(rows | {"accuracy": [influential, others, equal], "accuracy_std": 0.01})


def retrained(last: float, scope: str = "head", first: float = 0.8) -> pd.DataFrame:
    """Two epochs of retraining."""
    return frame({"scope": scope, "epoch": [0, 1, 2], "accuracy": [first, 0.82, last], "loss": [np.nan, 0.3, 0.2]})
