"""Question 1 on vision transformers: tokens as patches, the class token apart, every measure by plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional as F

from flows.progress import planned_stages
from storage.stages import FinishedStage, open_finished
from tasks.interpreters.topics import topic_forward
from tasks.steps.common.samples import read_positions
from tasks.steps.interpretation.topics import read_topics
from tests.conftest import Run, tiny_config
from tests.plans import cells, galleries, held_out, interpreted, learned, references
from tests.vits import BLOCK, INTERPRETERS, asked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run of question 1 on a transformer."""
    found = Run.of(asked(tiny_config(str(tmp_path_factory.mktemp("vit") / "store"))))
    planned_stages(found.plan, None)
    return found.finish()


@pytest.fixture(scope="module")
def shown(run: Run) -> FinishedStage:
    """Return the held-out activations."""
    return open_finished(run.job.store, held_out(run.plan)["small", 0])


def values(stage: FinishedStage, name: str) -> NDArray[np.float64]:
    """Return an array of a stage in double precision."""
    return stage.read(name).astype(np.float64)


def network_of(run: Run) -> Any:  # Any: torchvision's own modules
    """Return the trained network, from the store."""
    from tasks.steps.common.networks import load_network

    return load_network(run.job.store, held_out(run.plan)["small", 0], torch.device("cpu"))


def inputs(run: Run) -> Tensor:
    """Return all held-out images as the network takes them."""
    spec = held_out(run.plan)["small", 0]
    n = open_finished(run.job.store, spec).summary["samples"]
    return read_positions(run.job.store, spec, "val", np.arange(n))


def rest(model: Any, tokens: Tensor) -> Tensor:  # Any: torchvision's own modules
    """Return the logits of tokens after the block, by the parts of torchvision's forward."""
    found: Tensor = model.heads(model.encoder.ln(model.encoder.layers.encoder_layer_2(tokens))[:, 0])
    return found


def test_maps_are_the_patches_that_a_hook_sees(run: Run, shown: FinishedStage) -> None:
    model, seen = network_of(run), list[Tensor]()
    hook = model.get_submodule(BLOCK).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        logits = model(inputs(run))
    hook.remove()
    tokens = seen[0].double().numpy()
    maps = values(shown, "maps")
    assert maps.shape[1:] == (4, 4, 12)
    for row in range(4):
        for column in range(4):
            np.testing.assert_allclose(maps[:, row, column], tokens[:, 1 + 4 * row + column], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values(shown, "apart")[:, 0], tokens[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values(shown, "pooled"), tokens[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values(shown, "logits"), logits.numpy(), rtol=1e-4, atol=1e-4)
    assert shown.summary["map"] == [4, 4, 12]
    assert shown.summary["tokens"] == "4 x 4 patches, 1 token set apart"


def rebuilt_by_ice(run: Run, maps: NDArray[np.float64], label: int, spec: Any) -> NDArray[np.float64]:  # Any: StageSpec
    """Return maps as the components of a class rebuild them, by a solver of its own."""
    stage = open_finished(run.job.store, spec)
    basis, offset = values(stage, "components")[label], values(stage, "offset")[label, 0]
    rows = (maps.reshape(-1, maps.shape[-1]) - offset).clip(min=0)
    codes = np.stack([nnls(basis.T, row)[0] for row in rows])
    found: NDArray[np.float64] = (codes @ basis + offset).reshape(maps.shape)
    return found


def by_measure(run: Run, interpreter: str) -> dict[str, NDArray[np.float64]]:
    """Return the measures of the coreset's features by name."""
    (cell,) = [cell for cell in cells(run.plan) if cell.interpreter == interpreter]
    stage = open_finished(run.job.store, cell.evaluation)
    return dict(zip(stage.summary["measures"], values(stage, "values").T, strict=True))


@pytest.mark.parametrize("interpreter", list(INTERPRETERS))
def test_accuracy_keeps_the_class_token_and_rebuilds_the_patches(
    run: Run, shown: FinishedStage, interpreter: str
) -> None:
    model, found = network_of(run), by_measure(run, interpreter)
    (cell,) = [cell for cell in cells(run.plan) if cell.interpreter == interpreter]
    maps, apart, labels = values(shown, "maps"), values(shown, "apart"), shown.read("label")
    for label in range(10):
        own = labels == label
        if interpreter == "ice":
            rebuilt = torch.from_numpy(rebuilt_by_ice(run, maps[own], label, cell.features)).float()
        else:
            topics = read_topics(run.job.store, cell.features)(label)
            given = torch.from_numpy(maps[own]).float()
            rebuilt = topic_forward(given, topics.topics, topics.r1, topics.r2, topics.threshold)
        tokens = torch.cat([torch.from_numpy(apart[own]).float(), rebuilt.flatten(1, 2)], dim=1)
        with torch.no_grad():
            logits = rest(model, tokens)
        plain = shown.read("logits")[own]
        assert found["accuracy"][label] == pytest.approx(float((logits.argmax(1) == label).float().mean()))
        assert found["agreement"][label] == pytest.approx(float((logits.numpy().argmax(1) == plain.argmax(1)).mean()))
        assert found["fidelity"][label] == pytest.approx(
            float(np.abs(plain[:, label] - logits[:, label].numpy()).mean() / abs(plain[:, label].mean())), rel=1e-3
        )
        error = np.linalg.norm(maps[own] - rebuilt.double().numpy()) / np.linalg.norm(maps[own])
        assert found["error_val"][label] == pytest.approx(float(error), rel=1e-3)


def test_importance_is_the_derivative_of_the_rest_of_the_network(run: Run, shown: FinishedStage) -> None:
    (answer,) = interpreted(run.plan)
    spec = answer.references["ice"]
    cards, features = open_finished(run.job.store, answer.cards[spec.path]), open_finished(run.job.store, spec)
    model = network_of(run).double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    maps, apart, labels = values(shown, "maps"), values(shown, "apart"), shown.read("label")
    for label in (0, 7):
        own = labels == label
        basis, offset = values(features, "components")[label], values(features, "offset")[label, 0]
        rows = (maps[own].reshape(-1, 12) - offset).clip(min=0)
        codes = torch.from_numpy(np.stack([nnls(basis.T, row)[0] for row in rows])).reshape(-1, 16, 3)
        scale = torch.ones(3, dtype=torch.float64, requires_grad=True)  # 1 + t for the part of each component
        patches = torch.from_numpy(maps[own]).flatten(1, 2) + (codes * (scale - 1)) @ torch.from_numpy(basis)
        logits = rest(model, torch.cat([torch.from_numpy(apart[own]), patches], dim=1))[:, label].mean()
        (gradient,) = torch.autograd.grad(logits, scale)
        share = gradient.numpy() / abs(float(logits.detach()))
        for slot, component in enumerate(cards.read("feature")[label].tolist()):
            if component >= 0:
                assert cards.read("importance")[label, slot] == pytest.approx(share[component], rel=1e-2, abs=1e-3)
    model.float()


def test_heat_maps_lie_on_the_grid_of_patches(run: Run, shown: FinishedStage) -> None:
    for title, spec in galleries(run.plan).items():
        if "ice" not in title:
            continue
        stage = open_finished(run.job.store, spec)
        heat, ids = stage.read("heat"), stage.read("sample_id")
        features = open_finished(run.job.store, references(run.plan)["small", 0, "ice"])
        for row, (sample, label) in enumerate(zip(ids.tolist(), stage.read("label").tolist(), strict=True)):
            at = int(np.flatnonzero(shown.read("sample_id") == sample)[0])
            basis, offset = values(features, "components")[label], values(features, "offset")[label, 0]
            rows = (values(shown, "maps")[at].reshape(-1, 12) - offset).clip(min=0)
            codes = np.stack([nnls(basis.T, one)[0] for one in rows]).max(axis=1).reshape(1, 1, 4, 4)
            large = F.interpolate(torch.from_numpy(codes), size=heat.shape[2:], mode="bilinear")[0, 0].numpy()
            expected = 255 * (large - large.min()) / (large.max() - large.min())
            np.testing.assert_allclose(heat[row, 0], expected, atol=2)


def test_all_tokens_in_a_row_as_before(tmp_path: Path) -> None:
    in_line = {"tokens": "line", "gallery": 0, "interpreters": {"ice": {"components": 2}}}
    found = Run.of(asked(tiny_config(str(tmp_path / "store")), **in_line))
    planned_stages(found.plan, None)
    found.finish()
    stage = open_finished(found.job.store, learned(found.plan)["small", 0])
    assert stage.summary["map"] == [1, 17, 12]
    assert "apart" not in stage.layout.arrays
    assert "tokens" not in learned(found.plan)["small", 0].parameters


def test_recomputed_maps_give_the_same_topics(run: Run, tmp_path: Path) -> None:
    settings = {"topics": {**INTERPRETERS["topics"], "maps": "recompute"}}
    other = Run.of(asked(tiny_config(str(tmp_path / "store")), interpreters=settings))
    planned_stages(other.plan, None)
    other.finish()
    (one,) = (a.references["topics"] for a in interpreted(run.plan))
    (two,) = (a.references["topics"] for a in interpreted(other.plan))
    left, right = read_topics(run.job.store, one)(0), read_topics(other.job.store, two)(0)
    torch.testing.assert_close(left.topics, right.topics, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left.r2, right.r2, rtol=1e-3, atol=1e-3)
