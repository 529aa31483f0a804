"""How a command ended, and what it said: whether that is what its user was promised."""

import re
from collections.abc import Collection

from benchmarks.kills.runs import Run

DONE, FAILED, KILLED = 0, 1, -9
# What Python, Dask and Prefect print past the command: a traceback, an exception in a destructor or a forgotten task,
# a leak, a warning, a log line. Our own lines of error are in lower case.
NOISE = re.compile(
    r"Traceback|Exception ignored|Unhandled|was never|Fatal Python|Segmentation fault|core dumped|leaked|Unclosed"
    r"|[A-Z][a-z]+Warning\b|\b(WARNING|ERROR|CRITICAL)\b"
)


def judged(run: Run, code: int | None, allowed: Collection[int]) -> list[str]:
    """Return what is wrong with how a run ended and what it said.

    Parameters
    ----------
    code : how it ended; None where it had to be stopped
    allowed : exit codes that are not a problem; for an undisturbed run only DONE
    """
    name, said = run.log.name, [line for _, line in run.lines]
    problems = [f"{name}: noise: {line[:300]}" for line in said if NOISE.search(line)]
    if code is None:
        problems.append(f"{name}: hangs: {run.text()[-300:]}")
    elif code not in allowed:
        problems.append(f"{name}: exit code {code}: {run.text()[-300:]}")
    errors = [number for number, line in enumerate(said) if line.startswith("error")]
    if len(errors) != (code == FAILED):
        problems.append(f"{name}: exit code {code} with {len(errors)} lines of errors: {run.text()[-500:]}")
    if errors and said[errors[0] + 1 :]:
        problems.append(f"{name}: goes on after its line of error: {said[errors[0] + 1 :]}")
    return problems
