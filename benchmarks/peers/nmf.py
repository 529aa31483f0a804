"""NMF and codes: `fit_nmf` and `nmf_codes` against scikit-learn's, at small and large sizes."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from benchmarks.nmf import mixed_maps, relu_maps
from benchmarks.peers.measuring import Failed, in_milliseconds
from benchmarks.peers.sections import Section, Table, number, time_of
from tasks.interpreters.ice import fit_nmf, nmf_codes
from tasks.interpreters.nmf import SMALL as SOLVED

Maps = NDArray[np.float32]
PEER = "scikit-learn"
SIZES = ((40, 12, 3), (500, 32, 6), (9_000, 64, 10), (6_000, 128, 30), (480, 2_048, 10))  # rows, columns, rank
LARGE = (10_000, 512, 10)
CODES = ((500, 32, 6), (9_000, 64, 10), (6_000, 128, 25))
SMALL = ((40, 12, 3), (60, 8, 2))


def measure(*, quick: bool, rounds: int) -> Section:
    """Compare fits and codes."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    section = Section()
    sizes = SMALL if quick else SIZES
    cases = [(f"{n:,} x {d}, rank {rank}", mixed_maps(n, d), rank) for n, d, rank in sizes]
    if not quick:
        n, d, rank = LARGE
        cases.append((f"{n:,} x {d}, rank {rank}, sparse factors", relu_maps(n, 40), rank))
    fits = [_fitted(section, rounds, *case) for case in cases]
    heads = ("matrix", "layerlore", PEER, "time ratio", "error", f"error of {PEER}", "error ratio")
    note = (
        "Errors are relative to the norm of the matrix. Each side stops by its own rule. layerlore hands matrices of "
        f"fewer than {SOLVED:,} entries to scikit-learn's solver; its checks are what it takes more."
    )
    section.tables.append(Table("Fits of NMF", heads, fits, (note,)))
    codes = [_coded(section, rounds, n, d, rank) for n, d, rank in (SMALL if quick else CODES)]
    note = "Both get the same components. layerlore solves each row's problem exactly, scikit-learn up to a tolerance."
    section.tables.append(Table("Codes of new rows (transform)", heads, codes, (note,)))
    return section


def _fitted(section: Section, rounds: int, case: str, maps: Maps, rank: int) -> tuple[str, ...]:
    """Return the row of one fit."""
    size = float(np.linalg.norm(maps.astype(np.float64)))
    sides: dict[str, Callable[[], float]] = {
        "layerlore": lambda: fit_nmf(maps, rank).relative_error,
        PEER: lambda: float(NMF(rank, random_state=0).fit(maps).reconstruction_err_) / size,
    }
    return _row(section, f"NMF of {case}", case, in_milliseconds(sides, rounds))


def _coded(section: Section, rounds: int, n: int, d: int, rank: int) -> tuple[str, ...]:
    """Return the row of the codes of one matrix."""
    maps, case = mixed_maps(n, d), f"{n:,} x {d}, rank {rank}"
    components = np.asarray(fit_nmf(maps, rank).components)
    oracle = NMF(rank, random_state=0).fit(maps[: max(2 * rank, 30)])
    oracle.components_ = components.copy()
    sides: dict[str, Callable[[], float]] = {
        "layerlore": partial(_error_of, lambda: nmf_codes(maps, components), maps, components),
        PEER: partial(_error_of, lambda: oracle.transform(maps), maps, components),
    }
    return _row(section, f"Codes of {case}", case, in_milliseconds(sides, rounds))


def _error_of(code: Callable[[], Any], maps: Maps, components: Maps) -> float:  # Any: theirs is untyped
    """Return the relative error of codes; its product is the same small work on both sides."""
    rest = maps - np.asarray(code()) @ components
    return float(np.linalg.norm(rest) / np.linalg.norm(maps))


def _row(section: Section, title: str, case: str, found: Any) -> tuple[str, ...]:  # Any: what in_turn gives
    """Return a row from what both sides took and gave."""
    ours, theirs = found["layerlore"], found[PEER]
    for one in (ours, theirs):
        if isinstance(one, Failed):
            return (case, f"could not be run: {one.reason}", *[""] * 5)
    section.judge(title, ours.seconds, theirs.seconds, PEER)
    section.judge(title, ours.result, theirs.result, PEER, "error")
    return (
        case,
        time_of(ours.seconds),
        time_of(theirs.seconds),
        number(ours.seconds / theirs.seconds),
        f"{ours.result:.5f}",
        f"{theirs.result:.5f}",
        f"{ours.result / theirs.result:.4f}",
    )
