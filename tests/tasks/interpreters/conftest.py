"""Matrices of known structure, and memory measured in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Make = Callable[[int, int, int], NDArray[np.float64]]


def uniform(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return noise without structure."""
    rng = np.random.default_rng(seed)
    return rng.random((n, d))


def sparse_maps(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return a low-rank part with noise behind a ReLU, about half of it zero."""
    rng = np.random.default_rng(seed)
    codes = rng.gamma(0.5, size=(n, 12)) * (rng.random((n, 12)) < 0.3)
    signal = codes @ rng.gamma(0.5, size=(12, d))
    noisy: NDArray[np.float64] = signal + 0.5 * signal.std() * rng.standard_normal((n, d)) - 0.5 * signal.mean()
    return noisy.clip(min=0)


def low_rank(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return four factors with a little noise."""
    rng = np.random.default_rng(seed)
    return rng.random((n, 4)) @ rng.random((4, d)) + 0.05 * rng.random((n, d))


def counts(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return Poisson counts of skewed intensities."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.3, size=(n, 5)) @ rng.gamma(0.3, size=(5, d))).astype(np.float64)


def duplicates(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return each row about five times."""
    rng = np.random.default_rng(seed)
    return rng.random((n // 5 + 1, d)).repeat(5, axis=0)[:n] + 1e-3 * rng.random((n, d))


def with_zeros(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return rectified noise with silent rows and columns."""
    rng = np.random.default_rng(seed)
    a = np.maximum(rng.standard_normal((n, d)), 0)
    a[rng.random(n) < 0.3] = 0
    a[:, rng.random(d) < 0.3] = 0
    return a


def sparse_uniform(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Return noise of which four fifths are zero: the optima of a small one differ by several percent."""
    rng = np.random.default_rng(seed)
    return rng.random((n, d)) * (rng.random((n, d)) < 0.2)


MAKERS = (uniform, sparse_maps, low_rank, counts, duplicates, with_zeros, sparse_uniform)
STRUCTURES: dict[str, Make] = {f.__name__: f for f in MAKERS}


@pytest.fixture(params=STRUCTURES)
def structure(request: pytest.FixtureRequest) -> Make:
    """Return one generator of structured matrices."""
    return STRUCTURES[request.param]


@pytest.fixture
def peak_memory() -> Callable[[str, str], float]:
    """Return a function: bytes by which `code` raises the peak resident size after `setup`."""

    def measure(setup: str, code: str) -> float:
        # The kernel's own high-water mark, set back to the present size by writing 5 (man 5 proc); what setup freed
        # is given back first, or the code would reuse it unseen.
        script = (
            "import ctypes, re\n"
            "def peak():\n"
            "    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
            f"{setup}\n"
            "ctypes.CDLL(None).malloc_trim(0)\n"
            "open('/proc/self/clear_refs', 'w').write('5')\n"
            f"before = peak()\n{code}\nprint(peak() - before)"
        )
        root = Path(__file__).parents[3]
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    return measure
