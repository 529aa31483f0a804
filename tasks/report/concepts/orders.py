"""Whether other settings keep the order of the snapshots: pairs of snapshots under pairs of settings."""

import numpy as np
import pandas as pd

from tasks.figures.series import Floats
from tasks.figures.views import compact
from tasks.report import formats
from tasks.report.concepts.verdicts import State

ENOUGH = 0.9  # of the pairs in the same order: a yardstick of this report, the paper names none


def order_observation(best: pd.DataFrame, tau_curves: pd.DataFrame, temperatures: pd.DataFrame) -> tuple[State, str]:
    """Test whether tau and temperature change the numbers but not the order of the snapshots.

    Parameters
    ----------
    best : the best word of each neuron at each snapshot, as `ConceptResults.concepts` describes it
    tau_curves, temperatures : rows of the same network, seed and detector, as `ConceptResults` describes them

    Returns
    -------
    state and numbers; taus at which no more neurons remain than by chance take no part
    """
    claim = "Temperature and τ change the numbers, not the order of the snapshots"
    found = [_tau(best, tau_curves), _temperature(temperatures)]
    known = [each for each in found if each is not None]
    if not known:
        return "cannot be said", f"{claim}: it takes two snapshots and two values of a setting."
    held = all(share >= ENOUGH for share, _ in known)
    text = (
        f"{claim}: {'; '.join(words for _, words in known)}. A random order would keep {formats.share(0.5)}. "
        f"{formats.share(ENOUGH)} counts as enough, which is this report's yardstick."
    )
    return "held" if held else "did not hold", text


def kept_order(values: Floats) -> tuple[float, float]:
    """Count over each two settings the pairs of snapshots in the same order, and those ordered by both.

    Parameters
    ----------
    values : (settings, snapshots) float64; equal values have no order
    """
    first, second = np.triu_indices(values.shape[1], k=1)
    signs = np.sign(values[:, second] - values[:, first])
    signs = np.nan_to_num(signs)
    above, below = np.triu_indices(len(values), k=1)
    both = np.abs(signs) @ np.abs(signs).T
    same = (both + signs @ signs.T) / 2
    return float(same[above, below].sum()), float(both[above, below].sum())


def count_above(best: pd.DataFrame, taus: pd.DataFrame) -> pd.DataFrame:
    """Count the neurons above the same taus at each snapshot of a layer.

    Parameters
    ----------
    best : the best word of each neuron, as `ConceptResults.concepts` describes it; a dead neuron has similarity 0
    taus : layer, tau

    Returns
    -------
    layer, snapshot, tau, interpretable
    """
    counted = []
    for (layer, snapshot), rows in best.groupby(["layer", "snapshot"], sort=False):
        values = rows["similarity"].to_numpy(np.float64)
        asked = taus.loc[taus["layer"] == layer, "tau"].to_numpy(np.float64)
        above = (values[values != 0] > asked[:, None]).sum(axis=1)
        counted.append(pd.DataFrame({"layer": layer, "snapshot": snapshot, "tau": asked, "interpretable": above}))
    return pd.concat(counted, ignore_index=True)


def _tau(best: pd.DataFrame, curves: pd.DataFrame) -> tuple[float, str] | None:
    """Return the share of pairs that keep their order over the taus of the last snapshot, and the numbers in words."""
    if curves.empty or best.empty:
        return None
    last = curves[curves["snapshot"] == curves["snapshot"].max()]
    above = last[last["interpretable"].astype(float) > last["null"].astype(float)]
    share = _share(count_above(best, above), "tau", "interpretable")
    if share is None:
        return None
    counts = above["interpretable"].astype(float)
    words = (
        f"over {len(above)} values of τ that leave more neurons of a layer than chance does, from "
        f"{formats.count(counts.max())} to {formats.count(counts.min())} at the last snapshot, "
        f"{formats.share(share)} of the pairs of snapshots keep their order"
    )
    return share, words


def _temperature(rows: pd.DataFrame) -> tuple[float, str] | None:
    """Return the share of pairs that keep their order over the temperatures, and the numbers in words."""
    share = _share(rows, "temperature", "d_anchor")
    if share is None:
        return None
    last = rows[rows["snapshot"] == rows["snapshot"].max()]
    means = last.assign(d=last["d_anchor"].astype(float)).groupby("temperature")["d"].mean()
    words = (
        f"over {rows['temperature'].nunique()} temperatures, with d_anchor from {compact(means.min())} to "
        f"{compact(means.max())} at the last snapshot, {formats.share(share)} of the pairs keep their order"
    )
    return share, words


def _share(rows: pd.DataFrame, setting: str, value: str) -> float | None:
    """Return the share of pairs in the same order, all layers together; None where no pair is ordered twice."""
    same = both = 0.0
    for _, layer in rows.groupby("layer", sort=False):
        wide = layer.assign(**{value: layer[value].astype(float)}).pivot_table(value, setting, "snapshot", dropna=False)
        counted = kept_order(wide.to_numpy(np.float64))
        same, both = same + counted[0], both + counted[1]
    return same / both if both else None
