"""Archives of a graph network's training: each kind against the true updates, graph by graph and row by row."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import capture_inputs
from tasks.io.graph_models import graph_network
from tasks.modules.rows import Inputs, Rows, values_of
from tasks.recording import UpdateRecorder, UpdateSource, open_updates
from tasks.recording.programs import Row
from tests.graph_sets import packed, some_graphs

STEPS, BATCH = 7, 2
GRAPHS = packed(some_graphs(12))
LABELS = torch.arange(12) % 2
QUERIES = packed([*some_graphs(12), *some_graphs(4, seed=5)])[12:]
KINDS = ("dense", "hybrid", "replay")
State = dict[str, Tensor]


def model() -> nn.Module:
    torch.manual_seed(3)
    return graph_network(3, 2, width=64, layers=2, ends=True)


def optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.05)


def ids(step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(step).permutation(12)[:BATCH]


def update(network: nn.Module, optimize: torch.optim.Optimizer, examples: Sequence[int]) -> None:
    picked = torch.as_tensor(np.asarray(examples))
    optimize.zero_grad()
    F.cross_entropy(network(GRAPHS[picked]), LABELS[picked]).backward()  # type: ignore[no-untyped-call]  # torch's stub
    optimize.step()


def program() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], None]]:
    network = model()
    optimize = optimizer(network)
    return network, optimize, lambda row: update(network, optimize, row.examples.tolist())


def recorded(store: Path, kind: str, steps: int = STEPS) -> list[State]:
    """Record a training, or go on with one; return the weights before the first step made here and after each."""
    network = model().train()
    optimize = optimizer(network)
    with UpdateRecorder(network, optimize, str(store), kind=kind, checkpoint_every=3, program=program) as recorder:
        states = [{name: value.clone() for name, value in network.state_dict().items()}]
        for step in range(recorder.first_step, STEPS):
            if step == steps:
                raise InterruptedError
            with recorder.step(ids(step)):
                update(network, optimize, ids(step).tolist())
            states.append({name: value.clone() for name, value in network.state_dict().items()})
    return states


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[State]]:
    root = tmp_path_factory.mktemp("graphs")
    states = {kind: recorded(root / kind, kind) for kind in KINDS}
    for kind in KINDS:  # recording does not change a bit of the training
        for one, other in zip(states[kind], states["dense"], strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    return root, states["dense"]


def opened(root: Path, kind: str) -> UpdateSource:
    return open_updates(str(root / kind), program=program)


def query_inputs(states: list[State], layers: Sequence[str]) -> tuple[nn.Module, dict[str, Inputs]]:
    network = model()
    network.load_state_dict(states[-1])
    return network, capture_inputs(network.eval(), layers, QUERIES)


def rows_of_query(inputs: Inputs, q: int) -> Tensor:
    if isinstance(inputs, Rows):
        return inputs.values[inputs.offsets[q] : inputs.offsets[q + 1]].double()
    return inputs[q : q + 1].double()


@pytest.mark.parametrize("kind", KINDS)
def test_gamma_is_a_sum_over_each_query_s_rows(trained: tuple[Path, list[State]], kind: str) -> None:
    root, states = trained
    source = opened(root, kind)
    assert source.layers == [
        *(f"layers.{i}.{part}" for i in range(2) for part in ("edge", "first", "second")),
        "output",
    ]
    network, inputs = query_inputs(states, source.layers)
    for layer in source.layers:
        weight, module = source.final(layer), network.get_submodule(layer)
        assert torch.equal(weight, states[-1][f"{layer}.weight"])
        total, tolerance = torch.zeros(4, dtype=torch.float64), max(source.exactness[layer], 1e-6)
        for segment in source.segments():
            for block in source.blocks(segment, [layer]):
                found = block.project(module, weight, inputs[layer])
                total += found.gamma.double().sum(dim=1)
                for column, step in enumerate(block.steps.tolist()):
                    moved = states[step + 1][f"{layer}.weight"].double() - states[step][f"{layer}.weight"].double()
                    for q in range(4):
                        rows = rows_of_query(inputs[layer], q)
                        z, image = rows @ weight.double().T, rows @ moved.T
                        scale = float(z.norm() * image.norm())
                        assert abs(float(found.gamma[q, column]) - float((z * image).sum())) <= 5 * tolerance * scale
                        np.testing.assert_allclose(found.norm[q, column], image.norm(), rtol=20 * tolerance, atol=1e-7)
        for q in range(4):  # completeness
            rows = rows_of_query(inputs[layer], q)
            z = rows @ weight.double().T
            start = float((z * (rows @ source.initial(layer).double().T)).sum())
            assert abs(float(total[q]) + start - float(z.square().sum())) <= 1e-3 * float(z.square().sum())


def true_parts(states: list[State], step: int, layer: str) -> Tensor:
    """Return the gradient of each graph of a step (B, out, in), from the rows that the layer saw of it."""
    network = model().train()
    network.load_state_dict(states[step])
    seen: list[Tensor] = []
    module = network.get_submodule(layer)

    def keep(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        made.retain_grad()
        seen.extend((given[0].detach(), made))

    module.register_forward_hook(keep)
    picked = torch.from_numpy(ids(step))
    F.cross_entropy(network(GRAPHS[picked]), LABELS[picked]).backward()  # type: ignore[no-untyped-call]  # torch's stub
    gradient = seen[1].grad
    assert gradient is not None
    graphs = some_graphs(12)
    last = layer.split(".")[-1]
    sizes = [len(g.source) if last == "edge" else 1 if last == "output" else len(g.nodes) for g in graphs]
    parts, start = [], 0
    for number in picked.tolist():
        stop = start + sizes[number]
        parts.append(sum(torch.outer(gradient[r], seen[0][r]).double() for r in range(start, stop)))
        start = stop
    assert start == len(gradient)
    return torch.stack([torch.as_tensor(part) for part in parts])


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("replay", ["layers.0.edge", "layers.0.first", "layers.1.second", "output"]), ("hybrid", ["layers.1.second"])],
)
def test_each_graph_has_its_own_part(trained: tuple[Path, list[State]], kind: str, layers: list[str]) -> None:
    root, states = trained
    source = opened(root, kind)
    network, inputs = query_inputs(states, source.layers)
    for layer in layers:
        assert source.splits(layer)
        weight, module = source.final(layer), network.get_submodule(layer)
        for segment in source.segments():
            for block in source.blocks(segment, [layer], members=True):
                gamma = block.project(module, weight, inputs[layer]).gamma
                parts = block.per_example(module, weight, inputs[layer])
                for column, step in enumerate(block.steps.tolist()):
                    expected = -0.05 * true_parts(states, step, layer)
                    found = parts[column].double()
                    size = float(gamma[:, column].abs().max())
                    np.testing.assert_allclose(found.sum(dim=1), gamma[:, column], atol=2e-3 * size)
                    for q in range(4):
                        rows = rows_of_query(inputs[layer], q)
                        z = rows @ weight.double().T
                        products = [float((z * (rows @ part.T)).sum()) for part in expected]
                        np.testing.assert_allclose(found[q], products, atol=2e-3 * max(map(abs, products)) + 1e-9)


def test_a_hybrid_keeps_factors_of_ragged_rows(trained: tuple[Path, list[State]]) -> None:
    root, _ = trained
    source = opened(root, "hybrid")
    blocks = [block for segment in source.segments() for block in source.blocks(segment, ["layers.1.second"])]
    assert {type(block).__name__ for block in blocks} == {"FactorBlock"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_recording_goes_on_bit_for_bit(
    trained: tuple[Path, list[State]], kind: str, tmp_path: Path
) -> None:
    _, states = trained
    with pytest.raises(InterruptedError):
        recorded(tmp_path / kind, kind, steps=5)
    again = recorded(tmp_path / kind, kind)
    assert 1 < len(again) < STEPS
    for one, other in zip(reversed(again), reversed(states), strict=False):
        assert all(torch.equal(one[name], other[name]) for name in one)
    source = opened(tmp_path, kind)
    assert [step for s in source.segments() for b in source.blocks(s, ["output"]) for step in b.steps] == list(
        range(STEPS)
    )


def test_rows_of_calls_are_padded_by_graph() -> None:
    from tasks.recording.taps import Taps

    network = model().train()
    taps = Taps({"layers.0.edge": network.get_submodule("layers.0.edge")})
    with taps.during():
        network(GRAPHS[:3]).sum().backward()
        (call,) = taps.of("layers.0.edge")
        counts = [len(graph.source) for graph in some_graphs(12)[:3]]
        assert call.inputs is not None
        assert call.gradients is not None
        assert tuple(call.inputs.shape) == (3, max(counts), 6)
        assert tuple(call.gradients.shape) == (3, max(counts), 3)
        for row, count in zip(call.inputs, counts, strict=True):
            assert not bool(row[count:].any())
            assert bool((row[:count].sum(dim=1) == 2).all())  # one-hot labels of both ends
    assert values_of(GRAPHS) is GRAPHS
