"""The numeric tests and the goldens on another processor: with older kernels of every library, and two threads."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent
NUMERIC = ("test_golden.py", *(f"tasks/{kind}" for kind in ("coresets", "decomposition", "interpreters", "metrics")))
STEPS = (
    "test_groups.py",
    "interpretation/test_evaluation.py",
    "interpretation/test_selection.py",
    "decomposition/test_ablations.py",
)
# Kernels that every 64-bit Intel and AMD processor of the last fifteen years has.
OLDER = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OMP_NUM_THREADS": "2",
}


def numpy_extensions() -> list[str]:
    """Return the instructions that NumPy uses here beyond its least."""
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return found


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kernels of x86 processors are chosen")
def test_the_numeric_tests_hold_with_older_kernels_and_two_threads() -> None:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "PYTEST_"))}
    chosen = {**given, **OLDER, "NPY_DISABLE_CPU_FEATURES": " ".join(numpy_extensions())}
    files = [str(TESTS / name) for name in (*NUMERIC, *(f"tasks/steps/{name}" for name in STEPS))]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow and not s3 and not gpu and not browser and not cluster and not long",
        *files,
    ]
    done = subprocess.run(command, env=chosen, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
