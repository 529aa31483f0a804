"""Shape distance at n = 60,000, d = 512: streaming statistics against two plain forms on whole matrices.

`plain` whitens both sets and stops at the singular values of their product. `aligned` takes the steps of the metric's
authors: it fits a map for each set, maps the sets, and takes the angle of the aligned rows. Run from the checkout:
`python -m benchmarks.shape`. One BLAS thread; the CPU times of all sides are taken in turn in one process, for one and
for three alphas, the peak of allocated memory (inputs apart) in a separate pass, since tracing costs time. At the end
the same for smaller sets, where whole matrices can be faster; `--small` takes these alone.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tasks.metrics.shape import ShapeStatistics, shape_distance

Floats = NDArray[np.float32]
Measured = Callable[[Floats, Floats, float], float]

CHUNK_ROWS = 2000
ALPHAS = (0.0, 0.5, 1.0)
SEED = 0
SMALLER = ((200, 20), (600, 512), (2_000, 64), (5_000, 512))  # rows, columns


def summed(x: Floats, y: Floats) -> ShapeStatistics:
    """Return statistics updated with chunks of 2,000 rows."""
    statistics = ShapeStatistics()
    for start in range(0, len(x), CHUNK_ROWS):
        statistics.update(x[start : start + CHUNK_ROWS], y[start : start + CHUNK_ROWS])
    return statistics


def stream(x: Floats, y: Floats, alpha: float) -> float:
    """Distance from streamed statistics."""
    return summed(x, y).distance(alpha)


def several_alphas(x: Floats, y: Floats) -> dict[str, float]:
    """Return the CPU time of the distances at all ALPHAS: streamed statistics serve all, plain forms begin again."""
    start = time.process_time()
    statistics = summed(x, y)
    for alpha in ALPHAS:
        statistics.distance(alpha)
    found = {"streaming": time.process_time() - start}
    for name, form in {"plain": plain, "aligned": aligned}.items():
        start = time.process_time()
        for alpha in ALPHAS:
            form(x, y, alpha)
        found[name] = time.process_time() - start
    return found


def centred(matrix: Floats) -> NDArray[np.float64]:
    """Return the centred matrix, (n, d) float64."""
    found = matrix.astype(np.float64)
    found -= found.mean(axis=0)
    return found


def whitening(matrix: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Return the map (d, d) that whitens a centred matrix partially."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    factors = np.where(values >= 1e-9 * values[-1], alpha + (1 - alpha) / np.sqrt(np.abs(values)), 0.0)
    found: NDArray[np.float64] = (vectors * factors) @ vectors.T
    return found


def plain(x: Floats, y: Floats, alpha: float) -> float:
    """Distance by the formula as printed, whole matrices in float64."""
    first, second = (own @ whitening(own, alpha) for own in (centred(x), centred(y)))
    singular = np.linalg.svd(first.T @ second, compute_uv=False)
    return float(np.arccos(singular.sum() / (np.linalg.norm(first) * np.linalg.norm(second))))


def aligned(x: Floats, y: Floats, alpha: float) -> float:
    """Distance as the metric's authors compute it: fit the maps of both sets, map the sets, measure the angle."""
    own, other = centred(x), centred(y)
    maps = whitening(own, alpha), whitening(other, alpha)
    left, _, right = np.linalg.svd((own @ maps[0]).T @ (other @ maps[1]))
    first, second = centred(x) @ (maps[0] @ left), centred(y) @ (maps[1] @ right.T)
    cosine = float(np.vdot(first, second)) / float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.arccos(min(cosine, 1.0)))


def cpu_seconds(measured: Measured, x: Floats, y: Floats) -> float:
    """CPU time of one call at alpha = 0."""
    start = time.process_time()
    measured(x, y, 0.0)
    return time.process_time() - start


def peak_megabytes(measured: Measured, x: Floats, y: Floats) -> float:
    """Largest amount allocated at once during one call, beyond the inputs."""
    tracemalloc.start()
    measured(x, y, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def make_inputs(n: int, d: int) -> tuple[Floats, Floats]:
    """Two sets (n, d) float32, non-negative like activations, with half of their directions in common."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((n, d), dtype=np.float32)
    y = rng.standard_normal((n, d), dtype=np.float32)
    y[:, : d // 2] += 2 * x[:, : d // 2]
    return np.maximum(x, 0), np.maximum(y, 0)


def compare_small(n: int, d: int, rounds: int) -> None:
    """Print the least CPU time of several distances of smaller sets by each form."""
    x, y = make_inputs(n, d)
    calls = max(1, 2_000_000 // (n * d))
    least = dict.fromkeys(FORMS, np.inf)
    for _ in range(rounds + 1):  # the first warms up
        for name, measured in FORMS.items():
            start = time.process_time()
            for _ in range(calls):
                measured(x, y, 0.0)
            least[name] = min(least[name], (time.process_time() - start) / calls)
    times = ", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in least.items())
    fastest = min(least, key=least.__getitem__)
    ratio = least["one-shot"] / min(least["plain"], least["aligned"])
    print(f"  {n:,} x {d}: CPU ms {times}; fastest: {fastest}; one-shot / faster of the whole matrices {ratio:.2f}")


def compare_large(n: int, d: int, rounds: int) -> None:
    """Print times, peaks, agreement and their ratios of large sets."""
    x, y = make_inputs(n, d)
    taken: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(rounds):
        for name, measured in FORMS.items():
            taken[name].append(cpu_seconds(measured, x, y))
    seconds = {name: float(np.median(times)) for name, times in taken.items()}
    peaks = {name: peak_megabytes(measured, x, y) for name, measured in FORMS.items()}
    three = several_alphas(x, y)
    angles = {alpha: {name: form(x, y, alpha) for name, form in FORMS.items()} for alpha in ALPHAS}
    print(f"n = {n:,}, d = {d}, median of {rounds} rounds, one thread")
    for name in FORMS:
        print(
            f"{name:>9}: {seconds[name]:6.2f} s CPU ({seconds[name] / seconds['streaming']:.2f} x streaming), "
            f"peak {peaks[name]:7.1f} MiB ({peaks[name] / peaks['plain']:.3f} x plain)"
        )
    ratios = ", ".join(f"{name} {seconds / three['streaming']:.2f} x" for name, seconds in three.items())
    print(f"{len(ALPHAS)} alphas: streaming {three['streaming']:.2f} s CPU; {ratios}")
    for alpha, values in angles.items():
        largest = max(abs(value - values["plain"]) for value in values.values())
        print(f"alpha {alpha:g}: {values['plain']:.12f} rad, largest difference {largest:.1e}")


FORMS: dict[str, Measured] = {"streaming": stream, "one-shot": shape_distance, "plain": plain, "aligned": aligned}


def main() -> None:
    """Compare a large size, then smaller ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="smaller sets only")
    options = parser.parse_args()
    with threadpool_limits(1):
        if not options.small:
            compare_large(options.rows, options.columns, options.rounds)
        print("smaller sets, alpha = 0")
        for n, d in SMALLER:
            compare_small(n, d, options.rounds)


if __name__ == "__main__":
    main()
