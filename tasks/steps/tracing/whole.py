"""The scores of the whole network on question 4's page, a panel each next to those of the layers."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.report.tracing.results import End, QueryLayer, Ranking
from tasks.steps.common.manifest import positions
from tasks.steps.tracing.counterfactual import read_derivatives
from tasks.steps.tracing.explain import class_name
from tasks.steps.tracing.measured import score_label
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE, TRACIN_SCORE, scores_of, sign_of
from tasks.steps.tracing.tracin import read_tracin

Doubles = NDArray[np.float64]


class WholeScores:
    """The scores of the whole network that a config asks for; each is read once."""

    def __init__(self, store: Store, trace: Trace) -> None:
        self._scores: dict[str, Doubles] = {}
        spec = trace.comparison
        if spec is None:
            return
        if TRACIN_SCORE in spec.inputs:
            self._scores[TRACIN_SCORE] = read_tracin(store, spec.inputs[TRACIN_SCORE])
        if COUNTERFACTUAL_SCORE in spec.inputs:
            asked = spec.inputs[COUNTERFACTUAL_SCORE]
            self._scores[COUNTERFACTUAL_SCORE] = sign_of(asked) * read_derivatives(store, asked)
        self._labels_of = {score: score_label(spec, score) for score in self._scores}
        self._stage, self._order = open_finished(store, spec), scores_of(spec)
        rows = positions(store, trace.training.inputs["data"].path, trace.training.place["train"]["split"])
        self._labels, self._keys = rows["label_given"].to_numpy(np.int64), rows.set_index("id")["key"]

    def panels(self, names: dict[str, str], query: int) -> Iterator[QueryLayer]:
        """Yield a panel of a query for each score."""
        for score, values in self._scores.items():
            whole = float(np.abs(values[query]).sum()) or 1.0
            index = self._order.index(score)
            ends = []
            for end, sign in (("top", 1), ("bottom", -1)):
                ids, sums, labels = (
                    self._stage.read(f"{end}_{part}", index, index + 1)[0, query] for part in ("id", "value", "label")
                )
                table = pd.DataFrame(
                    {
                        "sample_id": ids,
                        "key": self._keys.loc[ids.tolist()].to_numpy(),
                        "class_name": [class_name(names, label) for label in labels.tolist()],
                        "sum": sums,
                        "share": sums / whole,
                        "cosine_sum": np.nan,
                    }
                )
                ends.append(table[sign * table["sum"] > 0].reset_index(drop=True))
            yield QueryLayer(
                layer=self._labels_of[score],
                positive=ends[0],
                negative=ends[1],
                ridges=None,
                init_share=float("nan"),
                preactivation_norm=float("nan"),
                classes=self._by_class(names, values[query], whole),
                score=score,
            )

    def rankings(self, k: int) -> Iterator[Ranking]:
        """Yield the first k examples at both ends of all queries for each score."""
        for score, values in self._scores.items():
            index = self._order.index(score)
            top, bottom = ends_of(self._stage, index, "value", k)
            whole = np.abs(values).sum(axis=1)
            yield Ranking(self._labels_of[score], score, top, bottom, np.where(whole > 0, whole, 1.0))

    def _by_class(self, names: dict[str, str], values: Doubles, whole: float) -> pd.DataFrame:
        """Return the sum of each class's examples."""
        sums = pd.Series(values).groupby(self._labels).sum()
        labels = [class_name(names, label) for label in sums.index.tolist()]
        return pd.DataFrame({"class_name": labels, "sum": sums.to_numpy(), "share": sums.to_numpy() / whole})


def ends_of(stage: FinishedStage, index: int, column: str, k: int) -> tuple[End, End]:
    """Return the first k examples at both ends of a ranking of a stage, for all queries.

    Parameters
    ----------
    index : of the ranking
    column : name of the sums: the arrays are top_id, top_<column>, top_label, and so on
    """

    def read(end: str) -> End:
        ids, sums, labels = (
            stage.read(f"{end}_{part}", index, index + 1)[0, :, :k] for part in ("id", column, "label")
        )
        return End(ids.astype(np.int64), sums.astype(np.float64), labels.astype(np.int64))

    return read("top"), read("bottom")
