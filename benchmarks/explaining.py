"""Explaining from a replay archive: CPU time of replaying with projection, relative to the training.

    python -m benchmarks.explaining [--rounds 3] [--steps 40] [--only NAME] [--queries 1,16] [--members] [--copies]

Records a small network on random data, then makes its steps again and projects them on queries at all layers: gammas
and norms, with `--members` also each example's part. `--copies` also measures, in turn, the same with a copy of every
weight at each step, in place of running products of large layers. A further copy of the network trains in turn with
the blocks of the replay, so that both see the same load of the machine. Prints replay with projection / training by
CPU time, in one torch thread, without the first block. What begins and ends a segment is not counted: a state of three
times the weights is read, hashed and compared, once in 500 steps by default.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.recording import CASES, Case, Loop
from tasks.capture import capture_inputs
from tasks.cluster.parallel import keep_freed_memory
from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.programs import Row
from tasks.tracing.running import runs


def repeat(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], None]]:
    """Return the program of a training."""
    loop = Loop(case)
    return loop.model, loop.optimizer, lambda row: loop.step(row.step)


def explain(case: Case, store: Path, queries: int, *, members: bool, copies: bool = False) -> tuple[float, float]:
    """Return the CPU seconds of the steps, and of the same steps made again and projected."""
    source, plain = open_updates(str(store), program=partial(repeat, case)), Loop(case)
    inputs = capture_inputs(plain.model, source.layers, plain.inputs[0, :queries])
    weights = {layer: source.final(layer) for layer in source.layers}
    (segment,) = source.segments()
    given = {name: (plain.model.get_submodule(name), weights[name], inputs[name]) for name in source.layers}
    few = [] if copies else [name for name in source.layers if runs(*given[name])]
    alone, together, last = 0.0, 0.0, 0
    blocks = source.blocks(segment, members=members, passing=few)
    while True:
        begin = time.process_time()
        block = next(blocks)
        seconds = time.process_time() - begin
        if block.stop == source.steps:
            return alone, together  # the last block comes with the comparison of states
        steps = range(last, block.stop)
        spent = sum(plain.seconds(step) for step in steps)
        begin = time.process_time()
        block.project(*given[block.layer])
        if members:
            block.per_example(*given[block.layer])
        seconds += time.process_time() - begin
        if block.start:
            alone, together = alone + spent, together + seconds
        last = block.stop


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="of the largest network; the others make more")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--queries", default="1,16", help="numbers of queries, separated by commas")
    parser.add_argument("--members", action="store_true", help="also each example's part")
    parser.add_argument("--copies", action="store_true", help="also with a copy of every weight at each step")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name, case in CASES.items():
        if asked.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            store, steps, loop = Path(folder, "store"), int(asked.steps * case.steps), Loop(case)
            with UpdateRecorder(loop.model, loop.optimizer, store, kind="replay", checkpoint_every=steps) as recorder:
                for step in range(steps):
                    with recorder.step([step % case.batch[0]] * case.batch[0]):
                        loop.step(step)
            for queries in map(int, asked.queries.split(",")):
                if queries > case.batch[0]:
                    continue
                ways = [False, True] if asked.copies else [False]
                found: dict[bool, list[float]] = {way: [] for way in ways}
                for _ in range(asked.rounds):
                    for way in ways:
                        alone, both = explain(case, store, queries, members=asked.members, copies=way)
                        found[way] += [both / alone] if alone else []
                for way, ratios in found.items():
                    say(f"{name}, {queries} queries", [", members"] * asked.members + [", copies"] * way, ratios)


def say(name: str, how: list[str], ratios: list[float]) -> None:
    """Print the median of the ratios of a case."""
    said = name + "".join(how)
    if not ratios:
        print(f"{said}: not measured, since its steps lie in fewer than three blocks; give more --steps")
        return
    print(
        f"{said}: replay with projection/training "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) of CPU time",
        flush=True,
    )


if __name__ == "__main__":
    main()
