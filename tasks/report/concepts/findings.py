"""The paper's observations: held, did not hold, or cannot be said."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.figures.concepts.holdings import snapshot_labels
from tasks.figures.concepts.styles import HIGH, LOW
from tasks.report import formats
from tasks.report.concepts.orders import order_observation
from tasks.report.concepts.verdicts import Observation, State, difference
from tasks.report.findings import Finding

__all__ = ["NAMES", "Observation", "first_third", "observations", "trust_findings"]

ABLATED = ("concepts", "tau_curves", "temperatures")
MOST = 0.5  # of the interpretable neurons: if chance alone gives more, they say nothing; a yardstick of this report
NAMES = ("Complexity", "Depth", "Early", "Ablations")


@dataclass(frozen=True)
class Third:
    """The end of the first third of the snapshots.

    Attributes
    ----------
    snapshot : which one
    paces : the part of the snapshots, and of the steps where they are known, that has passed by then, 0..1
    """

    snapshot: int
    paces: tuple[float, ...]


def first_third(monitor: pd.DataFrame) -> Third | None:
    """Return the end of the first third of the snapshots; None with fewer than three."""
    known = monitor.drop_duplicates("snapshot").sort_values("snapshot")
    if len(known) < 3:
        return None
    index = max(1, -(-len(known) // 3) - 1)
    steps = known["step"].to_numpy(np.float64)
    paces = [index / (len(known) - 1)]
    if (steps >= 0).all() and steps[-1] > steps[0]:
        paces.append(float((steps[index] - steps[0]) / (steps[-1] - steps[0])))
    return Third(int(known["snapshot"].iloc[index]), tuple(paces))


def observations(tables: Mapping[str, pd.DataFrame]) -> tuple[Observation, ...]:
    """Test the paper's observations of standard training, in the order of `NAMES`.

    Parameters
    ----------
    tables : monitor, concepts, categories, tau_curves and temperatures of one network, seed and detector, as
        `ConceptResults` describes them
    """
    monitor, categories = tables["monitor"], tables["categories"]
    known = categories[categories["category"].isin((*LOW, *HIGH))]
    return (
        Observation("Complexity", *_complexity(known, monitor)),
        Observation("Depth", *_depth(known, monitor)),
        Observation("Early", *_early(monitor)),
        Observation("Ablations", *order_observation(*(tables[name] for name in ABLATED))),
    )


def trust_findings(truth: pd.DataFrame) -> list[Finding]:
    """Say for each detector how many planted neurons it names."""
    found = []
    for detector, rows in truth[truth["check"].isin(("planted top-1", "planted top-5"))].groupby(
        "detector", sort=False
    ):
        said = []
        for check in ("planted top-1", "planted top-5"):
            known = rows[rows["check"] == check]
            value = known["value"].astype(float).mean()
            if np.isfinite(value):
                baseline = known["baseline"].astype(float).mean()
                chance = f" (by chance {formats.share(baseline)})" if np.isfinite(baseline) else ""
                said.append(
                    f"{'first' if check.endswith('1') else 'among its first five'} for {formats.share(value)}{chance}"
                )
        if said:
            text = f"{detector} names the concept of planted neurons {', and '.join(said)}."
            found.append(Finding("Trust", text + _nameable(truth[truth["detector"] == detector])))
    return found


def _nameable(truth: pd.DataFrame) -> str:
    """Say how many labels a captioner has the words for, "" for other detectors."""
    rows = truth[truth["check"] == "captions: labels with known words"]
    if rows.empty:
        return ""
    return f" Its captions have the words of {formats.share(float(rows['value'].iloc[0]))} of these concepts."


def _complexity(known: pd.DataFrame, monitor: pd.DataFrame) -> tuple[State, str]:
    """Compare the share of complex concepts at the first and the last snapshot that hold any."""
    claim = "Concepts grow more complex over training"
    high, total = _high(known, "snapshot")
    labels = snapshot_labels(monitor)
    if len(labels) < 2:
        return "cannot be said", f"{claim}: there is one snapshot only."
    held = [s for s in labels if total.get(s, 0) > 0]
    if len(held) < 2:
        return "cannot be said", f"{claim}: fewer than two snapshots have neurons with a concept of a known category."
    first, last = held[0], held[-1]
    state, words = difference((high[first], total[first]), (high[last], total[last]))
    text = (
        f"{claim}: of the neurons with a concept, {_of(high[first], total[first])} hold a part, an object or a scene "
        f"at {labels[first]} and {_of(high[last], total[last])} at {labels[last]}{words}."
    )
    return _beyond_chance(state, text, monitor, last)


def _depth(known: pd.DataFrame, monitor: pd.DataFrame) -> tuple[State, str]:
    """Compare the share of simple concepts in the shallowest and the deepest layer that hold any."""
    claim = "Shallow layers hold simple concepts"
    if monitor.empty:
        return "cannot be said", f"{claim}: no layer was looked at."
    last = int(monitor["snapshot"].max())
    high, total = _high(known[known["snapshot"] == last], "layer")
    layers = [layer for layer in dict.fromkeys(monitor["layer"]) if total.get(layer, 0) > 0]
    if len(layers) < 2:
        why = "there is one layer only" if monitor["layer"].nunique() < 2 else "fewer than two layers hold any"
        return "cannot be said", f"{claim}: {why}."
    deep, shallow = layers[-1], layers[0]
    low = {layer: total[layer] - high[layer] for layer in (deep, shallow)}
    state, words = difference((low[deep], total[deep]), (low[shallow], total[shallow]))
    text = (
        f"{claim}: of the neurons with a concept, {_of(low[shallow], total[shallow])} hold a color, a texture or a "
        f"material in {shallow} and {_of(low[deep], total[deep])} in {deep}{words}."
    )
    return _beyond_chance(state, text, monitor, last)


def _early(monitor: pd.DataFrame) -> tuple[State, str]:
    """Compare what the first third of the snapshots brought with an even pace."""
    claim = "Diversity comes early"
    third = first_third(monitor)
    if third is None:
        return "cannot be said", f"{claim}: there are fewer than three snapshots."
    labels = snapshot_labels(monitor)
    by_snapshot = monitor.assign(d=monitor["d_anchor"].astype(float), n=monitor["distinct"].astype(float)).groupby(
        "snapshot"
    )
    d, n = by_snapshot["d"].mean(), by_snapshot["n"].sum()
    first, then, last = (int(s) for s in (d.index[0], third.snapshot, d.index[-1]))
    fall, gain = float(d[first] - d[last]), float(n[last] - n[first])
    if not np.isfinite(fall) or not n.max() > 0:
        return "cannot be said", f"{claim}: no neuron holds a concept."
    parts = [
        float(d[first] - d[then]) / fall if fall > 0 else 0.0,
        float(n[then] - n[first]) / gain if gain > 0 else 0.0,
    ]
    went, came = "it does not fall", "their number does not grow"
    if fall > 0:
        went = (
            f"{formats.share(min(parts[0], 1))} of the fall by {labels[then]}" if parts[0] >= 0 else "it rises at first"
        )
    if gain > 0:
        came = f"{formats.share(min(parts[1], 1))} of the new ones" if parts[1] >= 0 else "their number falls at first"
    by = ("snapshots", "steps" if labels[then].startswith("step") else "the numbers of the checkpoints")
    even = {
        formats.share(p): f"{formats.share(p)} by {of}" for p, of in reversed([*zip(third.paces, by, strict=False)])
    }
    paces = list(reversed(even.values()))
    ds, ns = (
        [form(float(of[s])) for s in (first, then, last)] for form, of in ((formats.measure, d), (formats.count, n))
    )
    text = (
        f"{claim}: d_anchor (mean over layers) is {ds[0]} at {labels[first]}, {ds[1]} at {labels[then]} and {ds[2]} at "
        f"{labels[last]} ({went}). The layers then hold {ns[0]}, {ns[1]} and {ns[2]} distinct concepts "
        f"({came}). An even pace would give {' and '.join(paces)}."
    )
    return _beyond_chance("held" if min(parts) > max(third.paces) else "did not hold", text, monitor, last)


def _high(known: pd.DataFrame, by: str) -> tuple[dict[object, float], dict[object, float]]:
    """Return the neurons of complex concepts, and all, by snapshot or layer."""
    counted = known.assign(
        all=known["neurons"].astype(float), high=known["neurons"].where(known["category"].isin(HIGH))
    )
    summed = counted.assign(high=counted["high"].astype(float)).groupby(by)[["all", "high"]].sum()
    return dict(summed["high"].items()), dict(summed["all"].items())


def _beyond_chance(state: State, text: str, monitor: pd.DataFrame, snapshot: int) -> tuple[State, str]:
    """Add how many neurons would be interpretable by chance at a snapshot; most of them leave nothing to say."""
    rows = monitor[monitor["snapshot"] == snapshot]
    null = rows["null_interpretable"].astype(float).sum(min_count=1)
    if not np.isfinite(null):
        return state, text
    held = rows["interpretable"].astype(float).sum()
    neurons = "neuron" if null == 1 else "neurons"
    text = f"{text} By chance {formats.count(null)} {neurons} would hold a concept there, not {formats.count(held)}"
    if null > MOST * held:
        return "cannot be said", f"{text}: more than half, so nothing can be said."
    return state, f"{text}."


def _of(part: float, whole: float) -> str:
    """Print a share and what it is of."""
    return f"{formats.share(part / whole)} ({formats.count(part)} of {formats.count(whole)})"
