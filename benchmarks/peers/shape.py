"""Shape distance: streamed statistics against netrep's steps on whole matrices, also at sizes where those win."""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.peers.measuring import Failed, in_milliseconds, peak_megabytes
from benchmarks.peers.sections import Section, Table, number, time_of
from benchmarks.shape import ALPHAS, Floats, aligned, make_inputs, stream
from tasks.metrics.shape import shape_distance

SIZES = ((200, 20), (600, 512), (2_000, 64), (5_000, 512), (20_000, 512))
SMALL = ((200, 20), (100, 8))
EQUAL = 1e-6  # radians
SEEN = 1.0  # MiB; less memory is not worth a sentence
AGAIN = "netrep's definition, written again"


def measure(*, quick: bool, rounds: int) -> Section:
    """Compare time, memory and angles at all sizes."""
    section, rows = Section(), []
    peer, distance = netrep_side()
    for n, d in SMALL if quick else SIZES:
        x, y = make_inputs(n, d)
        rows.append(_row(section, rounds, x, y, peer, distance))
    note = (
        "netrep is not on the registry and could not be installed by its URL here. Its side is an independent program "
        "of its definition on whole matrices in memory (benchmarks/shape.py): whiten both, rotate, take the angle."
        if peer == AGAIN
        else "netrep is installed by its URL."
    )
    heads = ("rows x columns", "one call", "streamed", peer, "one call / peer", "peak memory", "peer's", "difference")
    differs = f"The difference is the largest of angles in radians at alpha = {', '.join(map(str, ALPHAS))}."
    section.tables.append(Table("One distance, alpha = 0", heads, rows, (note, differs)))
    return section


def netrep_side() -> tuple[str, Callable[[Floats, Floats, float], float]]:
    """Return netrep's distance, or the independent program where it is not installed."""
    if importlib.util.find_spec("netrep") is None:
        return AGAIN, aligned
    module = importlib.import_module("netrep.metrics")

    def distance(x: Floats, y: Floats, alpha: float) -> float:
        wide = x.astype(np.float64), y.astype(np.float64)
        return float(module.LinearMetric(alpha=alpha, score_method="angular").fit_score(*wide))

    return "netrep", distance


def _row(
    section: Section, rounds: int, x: Floats, y: Floats, peer: str, distance: Callable[[Floats, Floats, float], float]
) -> tuple[str, ...]:
    """Return the row of one size."""
    case = f"{len(x):,} x {x.shape[1]}"
    sides: dict[str, Callable[[], float]] = {
        "one call": partial(shape_distance, x, y, 0.0),
        "streamed": partial(stream, x, y, 0.0),
        peer: partial(distance, x, y, 0.0),
    }
    found = in_milliseconds(sides, rounds)
    if failures := [f"could not be run: {one.reason}" for one in found.values() if isinstance(one, Failed)]:
        return (case, *failures[:1], *[""] * 6)
    seconds = {name: one.seconds for name, one in found.items() if not isinstance(one, Failed)}
    section.judge(f"Shape distance of {case}", seconds["one call"], seconds[peer], peer)
    ours, theirs = (peak_megabytes(sides[name]) for name in ("one call", peer))
    if min(ours, theirs) > SEEN:
        section.judge(f"Shape distance of {case}", ours, theirs, peer, "memory")
    gap = max(abs(shape_distance(x, y, alpha) - distance(x, y, alpha)) for alpha in ALPHAS)
    return (
        case,
        *(time_of(seconds[name]) for name in sides),
        number(seconds["one call"] / seconds[peer]),
        *(f"{number(peak)} MiB" for peak in (ours, theirs)),
        f"{gap:.0e}" + ("" if gap < EQUAL else " (not equal)"),
    )
