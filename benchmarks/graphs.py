"""The columns of the paper's Table 1 for graph networks, by CPU time.

    python -m benchmarks.graphs mutag.npz [--epochs 20] [--size 16] [--ghosts 16] [--lr 0.01] [--rounds 5]

Trains the network of five layers and its twin of one layer on the graphs of a file, by single-class batches. Two copies
make their steps in turn in one process and one torch thread, and one is recorded. Prints recorded/unrecorded by CPU
time, the archive's size, and the CPU time of explaining a graph in all layers: gammas and norms of every step, of a
replay each example's part too. The time of an explanation leaves out the tables that a run makes of it. Archive and
explanation have two steps more, which warm up.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.recording import WARM, Case, Loop, record
from configs.datasets import GraphFile
from tasks.capture import capture_inputs
from tasks.cluster.parallel import keep_freed_memory
from tasks.io.graph_models import graph_network
from tasks.io.graphs import open_graph_file
from tasks.io.samples import Vector
from tasks.recording import open_updates
from tasks.recording.programs import Row
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tasks.training.samplers.single_class import SingleClassBatches

WIDTH = 32
LAYERS = {"deep": 5, "shallow": 1}


@dataclass(frozen=True)
class Graphs:
    """The graphs of a file as vectors (n, K), the class of each (n,), and the number of node labels."""

    inputs: Tensor
    labels: Tensor
    nodes: int


def read(path: str) -> Graphs:
    """Return the graphs of a file."""
    source = open_graph_file(GraphFile(source="graph-npz", paths={"all": path}))
    rows = list(source.rows())
    vectors = [s.image.values for s in source.read([row.key for row in rows]) if isinstance(s.image, Vector)]
    with np.load(path, allow_pickle=False) as arrays:
        nodes = 1 + int(arrays["node_label"].max())
    return Graphs(torch.from_numpy(np.stack(vectors)), torch.tensor([row.label for row in rows]), nodes)


@dataclass(frozen=True)
class GraphCase(Case):
    """A network of graphs and its batches."""

    graphs: Graphs
    batches: SingleClassBatches
    lr: float

    def start(self) -> "GraphLoop":
        """Return a training from its beginning."""
        return GraphLoop(self)


@dataclass
class GraphLoop(Loop):
    """A training on graphs from one seed."""

    case: GraphCase
    places: list[tuple[Sequence[int], Sequence[int]]] = field(init=False)  # examples and ghosts of an epoch's batches
    taken: list[tuple[Tensor, Tensor]] = field(init=False)  # inputs and labels of them

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = with_ghost_norm(self.case.build()).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=self.case.lr, momentum=0.9, nesterov=True, foreach=False
        )
        graphs = self.case.graphs
        self.places = [(batch.examples.tolist(), batch.ghosts.tolist()) for batch in self.case.batches.epoch(0)]
        self.taken = [
            (graphs.inputs[[*examples, *ghosts]], graphs.labels[examples]) for examples, ghosts in self.places
        ]

    def members(self, step: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the ids of the examples and of the ghosts of a step."""
        return self.places[step % len(self.places)]

    def step(self, step: int) -> None:
        """Make an update."""
        inputs, labels = self.taken[step % len(self.taken)]
        self.optimizer.zero_grad(set_to_none=True)
        with ghost_rows(self.model, len(labels), len(inputs) - len(labels)):
            loss = F.cross_entropy(self.model(inputs)[: len(labels)], labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        self.optimizer.step()


def program(case: GraphCase) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], None]]:
    """Return the program of a training."""
    loop = case.start()
    return loop.model, loop.optimizer, lambda row: loop.step(row.step)


def explain(case: GraphCase, store: Path, queries: int) -> float:
    """Return the CPU seconds of dividing the responses to some graphs in all layers among all steps."""
    begin = time.process_time()
    source = open_updates(str(store), program=partial(program, case))
    model, replays = case.start().model.eval(), source.kind == "replay"
    inputs = capture_inputs(model, source.layers, case.graphs.inputs[:queries])
    weights = {layer: source.final(layer) for layer in source.layers}
    for segment in source.segments():
        for block in source.blocks(segment, members=replays):
            module = model.get_submodule(block.layer)
            block.project(module, weights[block.layer], inputs[block.layer])
            if replays:
                block.per_example(module, weights[block.layer], inputs[block.layer])
    return time.process_time() - begin


def compare(name: str, kind: str, case: GraphCase, rounds: int, queries: int) -> None:
    """Print a line for a network and a kind of archive."""
    ratios, plain, times, size, steps = [], [], [], 0, int(case.steps)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        for _ in range(rounds):
            alone, recorded, closing, _ = record(case, steps + WARM, store, kind)
            ratios.append((recorded + closing) / alone)
            plain.append(alone / steps)
            size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
            times.append(explain(case, store, queries))
            shutil.rmtree(store)
    weights = 4 * sum(parameter.numel() for parameter in case.build().parameters())
    print(
        f"{name}, {kind}: {steps} steps of {statistics.median(plain) * 1e3:.2f} ms CPU; weights "
        f"{weights / 1e3:.0f} kB; archive {size / 1e6:.2f} MB; recorded/unrecorded CPU "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"{statistics.median(times) / queries * 1e3:.1f} ms CPU a graph "
        f"({min(times) / queries * 1e3:.1f} to {max(times) / queries * 1e3:.1f})",
        flush=True,
    )


def main() -> None:
    """Compare the networks of a file's graphs and the kinds of archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="npz file of graphs")
    for option, value in (("epochs", 20), ("size", 16), ("ghosts", 16), ("rounds", 5), ("queries", 20)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--only", default="", help="networks whose name contains this: deep, shallow")
    parser.add_argument("--kinds", default="dense,replay", help="kinds of archive, separated by commas")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    graphs = read(asked.path)
    batches = SingleClassBatches(graphs.labels.numpy(), 0, asked.size, asked.ghosts)
    classes, width = 1 + int(graphs.labels.max()), graphs.inputs.shape[1]
    for name, layers in LAYERS.items():
        if asked.only not in name:
            continue
        build = partial(graph_network, graphs.nodes, classes, WIDTH, layers, ends=True)
        steps = asked.epochs * batches.per_epoch
        case = GraphCase(build, (asked.size, width), steps, graphs, batches, asked.lr)
        for kind in asked.kinds.split(","):
            compare(f"{Path(asked.path).stem} {name}", kind, case, asked.rounds, asked.queries)


if __name__ == "__main__":
    main()
