"""The index's norms of sequences and graphs: padded tokens, maps of modules, ragged rows; against dense updates."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.stages import FinishedStage, open_finished
from tasks.capture import capture_inputs
from tasks.modules.naming import traced_module
from tasks.modules.rows import Inputs, Rows
from tasks.steps.common.networks import load_network
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.index_basis import held_out
from tasks.steps.tracing.index_norms import EXACT_STEPS, norm_calibration
from tasks.steps.tracing.ondemand import Recorded, Request
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.preview import preview_now
from tasks.steps.tracing.queries import query_inputs
from tests.flows.test_sequences import config
from tests.plans import traces
from tests.tasks.steps.tracing.test_graphs import graph_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = np.ndarray[Any, np.dtype[np.float64]]  # Any: shape


def tree_of(folder: Path, name: str) -> Tree:
    """Return a config with an index of few or of all axes."""
    data, axes = name.split("-")
    tree = graph_tree(folder) if data == "graphs" else config(folder)
    index = {"references": 6, "held_out": 2, "coefficients": 8, "axes": int(axes)}
    tree["tracing"] |= {"derive": {"index": index}}
    return tree


@pytest.fixture(scope="module", params=["tokens-40", "tokens-3", "graphs-40"])
def indexed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]
) -> tuple["Run", int]:
    """A finished run with an index, and the number of axes; not to be changed."""
    name = str(request.param)
    run = new_run(tree_of(tmp_path_factory.mktemp(name), name)).finish()
    return run, int(name.split("-")[1])


def change(module: nn.Module, given: Inputs, number: int, update: Tensor, bias: Tensor | None) -> Tensor:
    """Return what an update changes in the output for one query, without padding."""
    if isinstance(given, Rows):
        return F.linear(given[number : number + 1].values.double(), update, bias)
    one = given[number]
    if isinstance(module, nn.Embedding):
        return update[one[one >= 0].long()]
    if one.shape[-1] == update.shape[1] + 1:  # the last column says where a row is
        return F.linear(one[one[..., -1] > 0][..., :-1].double(), update, bias)
    return F.linear(one.double(), update, bias)


def exact_norms(run: "Run", trace: Trace) -> dict[str, Doubles]:
    """Return the norms (T, Q) of the changes of all updates by layer, for the queries of the index."""
    assert trace.index is not None
    store, spec = run.job.store, trace.index
    source = open_archive(store, trace.training)
    model = load_network(store, spec.inputs["queries"], torch.device("cpu"))
    images = query_inputs(store, spec.inputs["queries"], torch.device("cpu"))
    layers = [
        name for name in (source.layers) if f"axes.{name}" in open_finished(store, spec.inputs["basis"]).layout.arrays
    ]
    inputs, found = capture_inputs(model, layers, images), dict[str, Doubles]()
    for layer in layers:
        norms = np.zeros((source.steps, len(images)))
        module = traced_module(model, layer)
        for segment in source.segments():
            for block in source.blocks(segment, [layer]):
                weights, biases = block.dense().double(), block.dense_bias()
                for t in range(len(weights)):
                    bias = None if biases is None or not spec.place["bias"] else biases[t].double()
                    for q in range(len(images)):
                        moved = change(module, inputs[layer], q, weights[t], bias)
                        norms[block.start + t, q] = float(moved.square().sum().sqrt())
        found[layer] = norms
    return found


def stages(run: "Run", trace: Trace) -> tuple[FinishedStage, FinishedStage]:
    assert trace.index is not None
    return open_finished(run.job.store, trace.index), open_finished(run.job.store, trace.index.inputs["basis"])


def test_the_calibration_is_the_error_of_held_out_queries(indexed: tuple["Run", int]) -> None:
    """With all axes the norms of held-out queries are exact; with few, their error is what it is."""
    run, axes = indexed
    for trace in traces(run.plan):
        stage, basis = stages(run, trace)
        held, source = held_out(8, 2), open_archive(run.job.store, trace.training)
        exact, shares = exact_norms(run, trace), list[float]()
        assert set(exact) == {name.removeprefix("axes.") for name in basis.layout.arrays if name.startswith("axes.")}
        for layer, norms in exact.items():
            picked = np.concatenate(
                [
                    np.unique(np.linspace(s.start, s.stop - 1, min(EXACT_STEPS, s.stop - s.start)).round().astype(int))
                    for s in source.segments()
                ]
            )
            sizes = stage.read(f"size.{layer}").astype(np.float64)[picked]
            found, grams = norm_calibration(stage, basis, layer), stage.read(f"gram.{layer}")
            assert grams.shape[1] <= axes * (axes + 1) // 2
            sums = stage.read(f"norm-errors.{layer}").sum(axis=0)
            assert (sums[:, 2] == np.count_nonzero(sizes)).all()
            squares = lengths(run, trace, layer)[held]
            unit = sizes[:, None] * squares[None]
            ratio = np.divide(norms[picked][:, held], unit, out=np.zeros_like(unit), where=unit > 0)
            np.testing.assert_allclose(sums[:, 1], (ratio**2).sum(axis=0), rtol=1e-3, atol=1e-9)
            assert (found.error <= np.sqrt(1 - found.share) + 2e-3 * found.exact).all(), layer  # all that is neglected
            shares.append(float(found.share.min()))
        assert axes < 40 or max(shares) > 0.9999


def lengths(run: "Run", trace: Trace, layer: str) -> Doubles:
    """Return the norm (Q,) of the rows of each query of the index, with the bias's ones where it counts."""
    assert trace.index is not None
    store, spec = run.job.store, trace.index
    model = load_network(store, spec.inputs["queries"], torch.device("cpu"))
    images = query_inputs(store, spec.inputs["queries"], torch.device("cpu"))
    given = capture_inputs(model, [layer], images)[layer]
    source = open_archive(store, trace.training)
    counted = bool(spec.place["bias"]) and source.initial_bias(layer) is not None
    found = []
    for q in range(len(images)):
        if isinstance(given, Rows):
            rows = given[q : q + 1].values
        elif isinstance(traced_module(model, layer), nn.Embedding):
            rows = torch.ones(int((given[q] >= 0).sum()), 1)
        elif given.shape[-1] == source.initial(layer).shape[1] + 1:
            rows = given[q][given[q][..., -1] > 0][..., :-1]
        else:
            rows = given[q]
        n = rows.numel() // rows.shape[-1]
        found.append(float((rows.double().square().sum() + (n if counted else 0)).sqrt()))
    return np.array(found)


def test_a_preview_has_the_norms_of_its_query(indexed: tuple["Run", int]) -> None:
    """Class weights of a preview are sums of the exact norms; with few axes within the stated error."""
    run, axes = indexed
    for trace in traces(run.plan):
        assert trace.index is not None
        store, tracing = run.job.store, run.config.tracing
        assert tracing is not None
        queries = open_finished(store, trace.index.inputs["queries"])
        sample = int(np.flatnonzero(~held_out(8, 2))[2])
        training = Recorded(trace.training, run.config.networks[trace.network], trace.training.inputs["data"])
        request = Request(sample=int(queries.read("sample_id")[sample]), count=3)
        made = preview_now(store, training, tracing, request, (trace.index, None))
        for layer, norms in exact_norms(run, trace).items():
            table = made.classes[made.classes["layer"] == layer]
            total = norms[:, sample].sum()
            assert table["cosine"].between(-1, 1).all()
            assert f"layer {layer}, norms: " in made.notes[layer]
            share = float(re.findall(r"norms: ([\d.]+) % of the query's inputs", made.notes[layer])[0]) / 100
            outside = np.sqrt(max(1.0005 - share, 0)) * lengths(run, trace, layer)[sample]
            sizes = stages(run, trace)[0].read(f"size.{layer}").astype(np.float64)
            assert abs(table["weight"].sum() - total) <= sizes.sum() * outside + 2e-3 * total + 1e-9
            if axes == 40:
                assert table["weight"].sum() == pytest.approx(total, rel=3e-3)
