"""What the steps of a class did to a layer: their summed norms and mean cosine, the numbers of a ridge plot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.aggregate import step_shares
from tasks.steps.tracing.explain import class_name

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Moves:
    """Gamma and norm (T,) of every update of a layer, approximate, and the norm of z."""

    gamma: Doubles
    norm: Doubles
    preactivation: float

    def by_group(self, parts: Doubles) -> tuple[Doubles, Doubles]:
        """Return the summed norms, and the cosines weighted by the norms, of groups from their parts (T, groups)."""
        weights, sums = parts.T @ self.norm, parts.T @ self.gamma
        scale = weights * self.preactivation
        return weights, np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0).clip(-1.0, 1.0)


def weighed(
    store: Store,
    training: StageSpec,
    table: pd.DataFrame,
    partitions: Iterable[list[list[int]]],
    steps: tuple[dict[str, Moves], tuple[int, int] | None],
) -> pd.DataFrame:
    """Return the contributions of classes with the weight and the cosine of their steps, as of a ridge plot.

    Parameters
    ----------
    partitions : all classes in groups; each row of the table is a group of one of them
    steps : the moves of each layer, and the window of steps; None for all
    """
    moves, window = steps
    source, names = open_archive(store, training), open_finished(store, training.inputs["data"]).summary["class_names"]
    values: dict[tuple[str, str], tuple[float, float]] = {}
    for part in partitions:
        shares = step_shares(store, training, part, source)[:, :-1]
        if window is not None:
            shares[: window[0]], shares[window[1] :] = 0.0, 0.0
        labels = [", ".join(class_name(names, label) for label in group) for group in part]
        for layer, one in moves.items():
            values |= {
                (layer, label): (float(w), float(c)) for label, w, c in zip(labels, *one.by_group(shares), strict=True)
            }
    rows = [values[str(layer), str(label)] for layer, label in zip(table["layer"], table["class_name"], strict=True)]
    return table.assign(weight=[weight for weight, _ in rows], cosine=[cosine for _, cosine in rows])
