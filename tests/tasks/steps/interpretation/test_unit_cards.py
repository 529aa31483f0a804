"""Cards of VEBI's units: weights as shares, images by the stored responses, boxes from the units' own maps."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.stages import open_finished
from tasks.interpreters.peaks import peak_box
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.common.networks import load_network
from tasks.steps.interpretation.responses import read_images
from tests.plans import interpreted

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


@pytest.fixture(scope="module")
def units_run(
    finished_run: "Run",
    new_run: Callable[[Tree], "Run"],
    tmp_path_factory: pytest.TempPathFactory,
) -> "Run":
    """Return the tiny run with VEBI, made."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("cards") / "store")).tree)
    tree["networks"]["small"]["train"] |= {"epochs": 20, "optimizer": {"kind": "adam", "lr": 0.01}}
    tree["interpretation"] |= {"selectors": {"moderate": {}}, "interpreters": {"vebi": {"mu": 2.0}}}
    return new_run(tree).finish()


def relu_maps(model: nn.Module, images: Tensor) -> list[np.ndarray]:
    """Return the outputs of the network's ReLU modules by hooks."""
    found: list[np.ndarray] = []
    hooks = [
        m.register_forward_hook(lambda module, given, output: found.append(output.clone().numpy()))
        for m in model.modules()
        if isinstance(m, nn.ReLU)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def test_unit_cards_are_those_of_a_plain_loop(units_run: "Run") -> None:
    (answer,) = interpreted(units_run.plan)
    store, shown = units_run.job.store, answer.held_out
    activations = open_finished(store, shown)
    model = load_network(store, shown, torch.device("cpu"))
    maps = relu_maps(model, read_images(activations, shown, 0, activations.summary["samples"]))
    energies = [(layer.astype(np.float64) ** 2).sum(axis=(2, 3)) for layer in maps]
    shares = np.concatenate([e / np.where((t := e.sum(axis=1, keepdims=True)) > 0, t, 1) for e in energies], axis=1)
    place = [(call, channel) for call, layer in enumerate(maps) for channel in range(layer.shape[1])]
    n_units = 0
    for features, spec in answer.cards.items():
        stage = open_finished(store, spec)
        read: dict[str, Any] = {name: stage.read(name) for name in stage.layout.arrays}  # Any: of several dtypes
        whole = np.asarray(open_finished(store, spec.inputs["features"]).read("weights"))
        assert spec.inputs["features"].path == features
        for row, (_, (start, stop)) in enumerate(ranges_by_class(activations).items()):
            units = sorted(np.flatnonzero(whole[row]), key=lambda unit: -whole[row, unit])[:10]
            n_units += len(units)
            np.testing.assert_array_equal(read["feature"][row], [*units, *[-1] * (10 - len(units))])
            np.testing.assert_allclose(
                read["importance"][row, : len(units)], whole[row, units] / whole[row].sum(), rtol=1e-12
            )
            for slot, unit in enumerate(units):
                mine = shares[start:stop, unit]
                best = [int(i) for i in np.argsort(-mine, kind="stable")[:4] if mine[i] > 0]
                np.testing.assert_allclose(read["value"][row, slot, : len(best)], mine[best], rtol=1e-4)
                active = (mine >= mine.max() / 2).mean() if best else 0
                np.testing.assert_allclose(read["activity"][row, slot], active, atol=1 / len(mine) + 1e-9)
                for rank, position in enumerate(read["position"][row, slot, : len(best)].tolist()):
                    np.testing.assert_allclose(shares[position, unit], mine[best[rank]], rtol=1e-4)
                    call, channel = place[unit]
                    np.testing.assert_allclose(read["box"][row, slot, rank], peak_box(maps[call][position, channel]))
    assert n_units > 20
