"""Costs within layerlore: a whole run and its parts, a decomposed head and a dense one, selection as classes grow."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.decomposed_head import make_layers, training_step
from benchmarks.peers.measuring import Failed, adopting, cpu_seconds, in_milliseconds
from benchmarks.peers.sections import Section, Table, number, time_of
from tasks.coresets import SELECTORS

STAGE = re.compile(r"(?P<title>.+): done in (?P<seconds>[0-9.]+) s")
BEGUN = re.compile(r".+: [0-9,]+ of [0-9,]+ partitions to do")
WIDTH, CLASSES, KEPT = 2_048, 1_000, 50  # of ResNet-50's head
Line = tuple[float, str]  # seconds since the start, and the text


def measure(*, quick: bool, rounds: int) -> Section:
    """Compare heads and selections, then run the preset."""
    section = Section()
    section.tables.append(heads(section, rounds, *((64, 10, 4) if quick else (WIDTH, CLASSES, KEPT))))
    section.tables.append(selections(rounds, 200 if quick else 5_000))
    if not quick:
        section.tables.append(whole_runs())
    return section


def heads(section: Section, rounds: int, width: int, classes: int, kept: int) -> Table:
    """Return the cost of a decomposed head next to the dense one, forward and in a step of training."""
    dense, decomposed = make_layers(width, classes, kept)
    rows = []
    for batch in (1, 32, 256):
        x = torch.randn(batch, width, generator=torch.Generator().manual_seed(0))
        for what, of in (("forward", _inferred), ("forward and backward", training_step)):
            sides = {"dense": partial(of(dense), x), "decomposed": partial(of(decomposed), x)}
            found = in_milliseconds(sides, max(5, rounds))
            ours, theirs = found["decomposed"], found["dense"]
            assert not isinstance(ours, Failed), ours
            assert not isinstance(theirs, Failed), theirs
            section.judge(f"Head, batch {batch}, {what}", ours.seconds, theirs.seconds, "a dense layer")
            ratio = number(ours.seconds / theirs.seconds)
            rows.append((f"{what}, batch {batch}", time_of(ours.seconds), time_of(theirs.seconds), ratio))
    title = f"The decomposed head: {width:,} features, {classes:,} classes, {kept} of each"
    return Table(title, ("what", "decomposed", "dense", "ratio"), rows)


def _inferred(layer: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a layer's forward pass without gradients."""

    def forward(x: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = layer(x)
            return found

    return forward


def selections(rounds: int, n: int) -> Table:
    """Return the cost of selectors on classes of n and of 4 n examples."""
    rows = []
    features = np.random.default_rng(0).random((4 * n, 64)).astype(np.float32)
    for name in ("random", "moderate"):
        select = SELECTORS[name]
        found = in_milliseconds({str(k): partial(select, features[: k * n], 0.5) for k in (1, 4)}, rounds)
        once, fourfold = found["1"], found["4"]
        assert not isinstance(once, Failed), once
        assert not isinstance(fourfold, Failed), fourfold
        ratio = number(fourfold.seconds / once.seconds)
        rows.append((name, time_of(once.seconds), time_of(fourfold.seconds), ratio))
    return Table(
        f"Half of a class selected, by its 64 features: {n:,} and {4 * n:,} examples",
        ("selector", f"{n:,}", f"{4 * n:,}", "ratio"),
        rows,
        ("A selector that looks at each example once has a ratio of 4.",),
    )


def whole_runs() -> Table:
    """Return where the time of the preset `digits` goes, with two workers and in one process."""
    with tempfile.TemporaryDirectory() as home:
        run_preset("serial", home)  # Prefect's server makes its database once
        columns = [parts_of(*run_preset(kind, home)) for kind in ("local", "serial")]
    rows = [(part, *(time_of(column[part]) for column in columns)) for part in columns[0]]
    note = "On the clock, but for the last row: other load on the machine lengthens all parts."
    return Table(
        "The preset digits, from the command to its end", ("part", "two workers", "one process"), rows, (note,)
    )


def run_preset(kind: str, home: str) -> tuple[list[Line], float]:
    """Run the preset into an empty store; return the lines it printed, and the CPU time of all its processes.

    Parameters
    ----------
    kind : of the cluster
    home : Prefect's folder
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "flows.cli", "run", "digits"]
        command += ["--set", f"store={scratch}/store", "--set", f"cluster.kind={kind}"]
        lines: list[Line] = []
        spent, begin = cpu_seconds(), time.perf_counter()
        with (
            adopting(),
            subprocess.Popen(
                command,
                env={**os.environ, "PREFECT_HOME": home},
                cwd=scratch,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            lines += [(time.perf_counter() - begin, line.rstrip("\n")) for line in process.stdout]
        lines.append((time.perf_counter() - begin, ""))
        if process.returncode:
            raise RuntimeError(f"run digits: {lines[-2][1]}")
        return lines, cpu_seconds() - spent


def parts_of(lines: list[Line], spent: float) -> dict[str, float]:
    """Return the seconds of a run by part, from the lines that it printed and when."""
    begun = next(seconds for seconds, line in lines if BEGUN.fullmatch(line))
    stages = sum(float(found["seconds"]) for _, line in lines if (found := STAGE.fullmatch(line)))
    last = max(seconds for seconds, line in lines if STAGE.fullmatch(line))
    shown = next(seconds for seconds, line in lines if line.startswith("report: "))
    whole = lines[-1][0]
    return {
        "until the first stage": begun,
        "stages": stages,
        "between stages": last - begun - stages,
        "the report, and the end of the workers": shown - last,
        "after it": whole - shown,
        "all": whole,
        "CPU time of all processes": spent,
    }
