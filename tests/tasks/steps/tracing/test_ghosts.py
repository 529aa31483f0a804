"""The parts of batches and ghosts in a layer before normalisation, against each row's gradient in a plain loop."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.stages import open_finished
from tasks.report.tracing.tables import layers_table
from tasks.steps.common.trainer import open_trainer
from tasks.steps.tracing.results import tracing_results
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import images, manifest_rows, mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

LR = 0.05


def normed() -> nn.Sequential:
    """An MLP with batch norm."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10))


def tree_of(store: Path, *, detach: bool) -> Tree:
    """A config of that MLP, trained by plain SGD on batches of 2 with 3 ghosts, recorded in factors."""
    tree = mlp_tree(store)
    net = tree["networks"]["net"]
    net |= {"model": f"{__name__}:normed", "arguments": {}}
    net["train"] |= {
        "batches": {"kind": "single-class", "size": 2, "ghosts": 3, "detach_ghosts": detach},
        "optimizer": {"kind": "sgd", "lr": LR},
        "checkpoint_every": 4,
        "record": {"kind": "hybrid"},
    }
    tree["tracing"] = {"networks": ["net"], "queries": {"count": 3}, "k": 20}
    return tree


def row_gradients(run: "Run", layer: str) -> tuple[Tensor, Tensor, nn.Module]:
    """Return the sums over all steps of -lr g_b x_b^T of batches and of ghosts (out, in), and the trained model."""
    (trace,) = traces(run.plan)
    spec, torch_model = trace.training, normed()
    rows = manifest_rows(run, spec.inputs["data"], "train")
    trainer = open_trainer(run.job.store, spec, torch.device("cpu"), 2**20)
    torch_model.load_state_dict(trainer.model.state_dict())  # the weights before step 0
    batches, train = trainer.samples.batches, spec.place["train"]
    twin = with_ghost_norm(torch_model, detach_ghosts=train["batches"]["detach_ghosts"])
    x, y = images(rows["id"].to_numpy(np.int64)), torch.tensor(rows["label_given"].array)
    optimizer = torch.optim.SGD(torch_model.parameters(), lr=LR)
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        out.retain_grad()
        seen.update(x=given[0].detach(), z=out)

    twin.get_submodule(layer).register_forward_hook(keep)
    batch_sum, ghost_sum = (
        torch.zeros_like(twin.get_parameter(f"{layer}.weight"), dtype=torch.float64).detach().expand(2, -1, -1)
    )
    for step in range(batches.per_epoch * train["epochs"]):
        batch = batches.batch(step)
        picked, m = torch.from_numpy(np.concatenate([batch.examples, batch.ghosts])), len(batch.examples)
        twin.train()
        optimizer.zero_grad()
        with ghost_rows(twin, m, len(batch.ghosts)):
            F.cross_entropy(twin(x[picked])[:m], y[picked[:m]]).backward()  # type: ignore[no-untyped-call]  # torch's
        outer = rows_of(seen["z"])[:, :, None] * seen["x"].double()[:, None, :]
        batch_sum, ghost_sum = batch_sum - LR * outer[:m].sum(0), ghost_sum - LR * outer[m:].sum(0)
        optimizer.step()
    return batch_sum, ghost_sum, torch_model


def rows_of(out: Tensor) -> Tensor:
    """Return the gradient of each row of an output."""
    assert out.grad is not None
    return out.grad.double()


@pytest.mark.parametrize("detach", [False, True])
def test_batch_and_ghosts_of_a_layer(tmp_path: Path, new_run: Callable[[Tree], "Run"], detach: bool) -> None:
    run = new_run(tree_of(tmp_path / "store", detach=detach)).finish()
    (trace,) = traces(run.plan)
    layers = tracing_results(run.job.store, [trace], "show").layers.set_index("layer")
    assert layers["split"].tolist() == ["example", "equal"]  # 16 bits are fewer than the last layer's factors
    assert layers[["batch_share", "ghosts_share"]].loc["4"].isna().all()
    ids = np.asarray(open_finished(run.job.store, trace.queries).read("sample_id"), np.int64)
    batch, ghosts, model = row_gradients(run, "1")
    module = model.get_submodule("1")
    assert isinstance(module, nn.Linear)
    f = images(ids).double().flatten(1)
    z = f @ module.weight.detach().double().T
    shares = [((z * (f @ part.T)).sum(1) / z.square().sum(1)).mean().item() for part in (batch, ghosts)]
    np.testing.assert_allclose(layers["batch_share"]["1"], shares[0], atol=1e-5)
    np.testing.assert_allclose(layers["ghosts_share"]["1"], shares[1], atol=1e-5)
    assert (abs(shares[1]) > 1e-3) != detach, shares
    table = layers_table(layers.reset_index())
    titles = [column.title for column in table.columns]
    assert titles[titles.index("examples") :][:4] == ["examples", "decay", "batch", "ghosts"]
    assert "`detach_ghosts`" in table.note


def test_equal_splits_do_not_know_the_ghosts(tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> None:
    tree = tree_of(tmp_path / "store", detach=False)
    tree["tracing"]["split"] = "equal"
    run = new_run(tree).finish()
    layers = tracing_results(run.job.store, list(traces(run.plan)), "show").layers
    assert layers[["batch_share", "ghosts_share"]].isna().all(axis=None)
    assert "ghosts" not in [column.title for column in layers_table(layers).columns]
