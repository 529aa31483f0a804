"""The page's title answered in a sentence, for one detector and for the others next to it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tasks.figures.concepts.holdings import snapshot_labels
from tasks.report import formats
from tasks.report.concepts.findings import first_third

MAX_TIED = 3  # words that are named as the most common ones


def fullest_layer(monitor: pd.DataFrame) -> pd.Series | None:
    """Return the row of the layer with the largest share of interpretable neurons beyond chance at the last snapshot.

    Parameters
    ----------
    monitor : rows of one network, seed and detector, as `ConceptResults` describes them; an unknown null counts as 0

    Returns
    -------
    of equal ones the deepest; None where no neuron is interpretable
    """
    last = _last(monitor)
    held, neurons, null = (last[name].astype(float) for name in ("interpretable", "neurons", "null_interpretable"))
    if not held.sum():
        return None
    share = ((held - null.fillna(0)) / neurons).where(held > 0, -np.inf).to_numpy(np.float64)
    return last.iloc[int(np.flatnonzero(share == share.max())[-1])]


def answer(monitor: pd.DataFrame, common: pd.DataFrame, network: str = "") -> str:
    """Answer the page's title for one network, seed and detector.

    Parameters
    ----------
    monitor, common : rows of one network, seed and detector, as `ConceptResults` describes them
    network : its name, "" where the page has one only
    """
    if monitor.empty:
        return "No layer was looked at."
    labels = snapshot_labels(monitor)
    when = " at the end of training" if len(labels) > 1 else ""
    of = f" of {network}" if network else ""
    row = fullest_layer(monitor)
    if row is None:
        last = _last(monitor)
        dead = last["dead"].astype(float).sum()
        of_them = f"; {formats.count(dead)} of them {'is' if dead == 1 else 'are'} dead" if dead else ""
        neurons = formats.count(last["neurons"].astype(float).sum())
        return f"None of the {neurons} neurons{of} holds a concept{when}{of_them}."
    held = float(row["interpretable"])
    text = f"{formats.count(held)} of {formats.count(float(row['neurons']))} neurons of layer {row['layer']}{of} "
    text += f"{'hold' if held != 1 else 'holds'} a concept{when}{_chance(float(row['null_interpretable']))}"
    third = first_third(monitor)
    if third is not None:
        mine = monitor[monitor["layer"] == row["layer"]].set_index("snapshot")["interpretable"].astype(float)
        earlier = [s for s in (min(labels), third.snapshot) if s in mine.index]
        said = [f"{formats.count(float(mine[s]))} at {labels[s]}" for s in earlier]
        text += f"; {', '.join(said)}" if said else ""
    most = common[(common["layer"] == row["layer"]) & (common["snapshot"] == row["snapshot"])]
    return f"{text}{_most_common(most)}."


def other_answers(monitor: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
    """Say how many neurons the other detectors find, of the layer that the answer is about.

    Parameters
    ----------
    monitor : rows of one network, seed and detector
    others : of the other detectors of the same network and seed, by name

    Returns
    -------
    a sentence, all layers together where the answer is about all; "" without others
    """
    row = fullest_layer(monitor)
    parts = []
    for detector, rows in others.items():
        last = _last(rows)
        mine = last if row is None else last[last["layer"] == row["layer"]]
        if len(mine):
            held, neurons = (formats.count(mine[name].astype(float).sum()) for name in ("interpretable", "neurons"))
            chance = _chance(float(mine["null_interpretable"].astype(float).sum(skipna=False)))
            parts.append(f"{detector} {held} of {neurons}{chance}")
    if not parts:
        return ""
    return f"{'Other detectors' if len(parts) > 1 else 'The other detector'}: {', '.join(parts)}."


def _last(monitor: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last snapshot."""
    rows: pd.DataFrame = monitor[monitor["snapshot"] == monitor["snapshot"].max()]
    return rows.reset_index(drop=True)


def _chance(null: float) -> str:
    """Say how many neurons would hold a concept by chance, where that is known."""
    return f" (by chance {formats.count(null)})" if np.isfinite(null) else ""


def _most_common(common: pd.DataFrame) -> str:
    """Name the words that most neurons of a layer hold, where they are few and more than one neuron holds each."""
    neurons = common["neurons"].astype(float)
    words = [str(word) for word in common.loc[neurons == neurons.max(), "word"]]
    if not 1 <= len(words) <= MAX_TIED or neurons.max() < 2:
        return ""
    each = " each" if len(words) > 1 else ""
    return f"; most common: {', '.join(words)} ({formats.count(float(neurons.max()))} neurons{each})"
