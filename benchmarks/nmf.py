"""Chunked NMF against scikit-learn's: CPU time, error and memory on maps of 63,700 positions by 512 channels.

Also many components of few channels, where a sweep costs as much as a reading, and small matrices. These show where
scikit-learn is faster: the smallest fits, and codes of many components.

Run `python -m benchmarks.nmf`, or with `--rows` and `--rounds` for less, or with `--small` for small matrices alone;
every figure is measured by the run itself.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import ctypes
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on both sides

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from tasks.interpreters.ice import fit_nmf, nmf_codes

RANK = 10
N_CHANNELS = 512
SMALLER = (  # rows, columns, rank
    *((40, 12, 3), (500, 32, 6), (2_300, 32, 6), (9_000, 64, 10)),
    *((6_000, 128, 25), (6_000, 128, 30), (480, 2_048, 10)),
)


def relu_maps(n: int, n_factors: int, seed: int = 0) -> NDArray[np.float32]:
    """Return (n, 512) float32 sparse factors with half as much noise behind a ReLU, made in blocks."""
    rng = np.random.default_rng(seed)
    factors = rng.gamma(0.5, size=(n_factors, N_CHANNELS)).astype(np.float32)
    maps = np.empty((n, N_CHANNELS), dtype=np.float32)
    for start in range(0, n, 4096):
        block = maps[start : start + 4096]
        codes = rng.gamma(0.5, size=(len(block), n_factors)) * (rng.random((len(block), n_factors)) < 0.3)
        block[:] = codes.astype(np.float32) @ factors
        block += 0.5 * block.std() * rng.standard_normal(block.shape, dtype=np.float32) - 0.5 * block.mean()
        np.maximum(block, 0, out=block)
    return maps


def mixed_maps(n: int, d: int, seed: int = 1) -> NDArray[np.float32]:
    """Return (n, d) float32 normal numbers, linearly mixed, behind a ReLU."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d))
    maps: NDArray[np.float32] = np.maximum(rng.normal(size=(n, d)) @ mixing, 0).astype(np.float32)
    return maps


def compare(name: str, maps: NDArray[np.float32], rank: int, rounds: int) -> None:
    """Print CPU time and error of both sides, interleaved over rounds."""
    size = float(np.linalg.norm(maps.astype(np.float64)))
    ours, theirs = [], []
    for seed in range(rounds):
        start = time.process_time()
        found = fit_nmf(maps, rank, seed=seed)
        middle = time.process_time()
        oracle = NMF(rank, random_state=seed).fit(maps)
        end = time.process_time()
        ours.append((middle - start, found.relative_error))
        theirs.append((end - middle, oracle.reconstruction_err_ / size))
        print(
            f"  {len(maps)} x {maps.shape[1]}, {name}, rank {rank}, round {seed}:"
            f" CPU {ours[-1][0]:.2f} s / {theirs[-1][0]:.2f} s"
            f" = {ours[-1][0] / theirs[-1][0]:.3f}; error {ours[-1][1]:.5f} / {theirs[-1][1]:.5f}"
            f" = {ours[-1][1] / theirs[-1][1]:.5f}"
        )
    start = time.process_time()
    nmf_codes(maps, found.components)
    middle = time.process_time()
    oracle.transform(maps)
    codes, theirs_too = middle - start, time.process_time() - middle
    print(f"  codes of {len(maps)} rows: CPU {codes:.2f} s / {theirs_too:.2f} s = {codes / theirs_too:.3f}")
    ratios = np.array(ours) / np.array(theirs)
    print(f"  median CPU ratio {np.median(ratios[:, 0]):.3f}, worst error ratio {ratios[:, 1].max():.5f}")


def compare_small(n: int, d: int, rank: int, rounds: int) -> None:
    """Print the least CPU time of several fits, and of codes, of each side, in turn, and the errors."""
    maps = mixed_maps(n, d)
    size, errors, times = float(np.linalg.norm(maps)), np.zeros(2), np.full((rounds, 4), np.inf)
    for k in range(rounds):
        start = time.process_time()
        found = fit_nmf(maps, rank)
        marks = [time.process_time()]
        oracle = NMF(rank, random_state=0).fit(maps)
        marks.append(time.process_time())
        nmf_codes(maps, found.components)
        marks.append(time.process_time())
        oracle.transform(maps)
        times[k] = np.diff([start, *marks, time.process_time()])
        errors[:] = found.relative_error, oracle.reconstruction_err_ / size
    ours, theirs, codes, theirs_too = 1e3 * times.min(axis=0)
    print(
        f"  {n} x {d}, rank {rank}: CPU {ours:.1f} ms / {theirs:.1f} ms = {ours / theirs:.3f};"
        f" error ratio {errors[0] / errors[1]:.5f};"
        f" codes {codes:.1f} ms / {theirs_too:.1f} ms = {codes / theirs_too:.3f}"
    )


def extra_memory(n: int, side: str) -> float:
    """Return the bytes by which one fit of `n` rows raises the peak resident size; call once per process (Linux)."""
    fit_nmf(relu_maps(5000, 12), 3)  # libraries keep their first buffers
    maps = relu_maps(n, 12)
    ctypes.CDLL(None).malloc_trim(0)  # what making the maps freed must not be reused unseen
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again at the present size
    before = _peak()
    if side == "ours":
        fit_nmf(maps, RANK)
    else:
        NMF(RANK, random_state=0, max_iter=5).fit_transform(maps)  # its peak is reached in the first iterations
    return float(_peak() - before)


def _peak() -> int:
    """Return the kernel's high-water mark of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def memory_table(sizes: list[int]) -> None:
    """Print peak memory beyond the input against the number of rows, each in a process of its own."""
    print("  rows      input MB   extra MB ours (of input; of the bound)   extra MB scikit-learn (of input)")
    for n in sizes:
        given, bound = n * N_CHANNELS * 4, 0.75 * n * N_CHANNELS * 4 + 4 * n * RANK * 4
        extra = {}
        for side in ("ours", "scikit-learn"):
            command = [sys.executable, "-m", "benchmarks.nmf", "--memory-of", side, "--rows", str(n)]
            extra[side] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        mine, other = extra["ours"], extra["scikit-learn"]
        print(
            f"  {n:7d} {given / 1e6:10.1f} {mine / 1e6:10.1f}  ({mine / given:.3f}; {mine / bound:.3f})"
            f" {other / 1e6:24.1f}  ({other / given:.3f})"
        )


def main() -> None:
    """Run the comparison and the memory table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=63_700)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small matrices only")
    parser.add_argument("--memory-of", choices=["ours", "scikit-learn"], help="print one figure in bytes and stop")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if chosen.memory_of:
        print(extra_memory(chosen.rows, chosen.memory_of))
        return
    print("fit_nmf / scikit-learn, one thread, ours first in each round")
    fit_nmf(mixed_maps(50, 8), 2)  # libraries load
    for n, d, rank in SMALLER:
        compare_small(n, d, rank, 2 * chosen.rounds)
    if chosen.small:
        return
    for n_factors in (40, 10):
        compare(f"{n_factors} planted", relu_maps(chosen.rows, n_factors), RANK, chosen.rounds)
    for n, rank in ((40_000, 30), (40_000, 40), (20_000, 30), (20_000, 40)):
        compare("mixed", mixed_maps(n, 128), rank, chosen.rounds)
    print("peak memory beyond the input, rank 10")
    memory_table([chosen.rows // 8, chosen.rows // 4, chosen.rows // 2, chosen.rows])


if __name__ == "__main__":
    main()
