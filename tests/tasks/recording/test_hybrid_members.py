"""Each member's part of an update from factors, against the gradients of copies of the weight per sample."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.recording import UpdateRecorder, UpdateSource, open_updates
from tasks.recording.hybrid_blocks import FactorBlock
from tasks.recording.hybrid_segment import HybridSegment, Start
from tasks.tracing import contributions, decay_contributions
from tests.tasks.recording.hybrids import (
    BATCH,
    SGD,
    STEPS,
    Hybrid,
    batch,
    convolutions,
    ids,
    mlp,
    queries,
    sgd,
    tokens,
)

FACTORS = {"mlp": (mlp, "0"), "convolutions": (convolutions, "4"), "tokens": (tokens, "1")}


def blocks_of(source: UpdateSource, layer: str) -> list[FactorBlock]:
    """Return the blocks of a layer with factors, of all segments."""
    found = [block for segment in source.segments() for block in source.blocks(segment, [layer], members=True)]
    assert all(isinstance(block, FactorBlock) for block in found)
    return [block for block in found if isinstance(block, FactorBlock)]


def true_parts(training: Hybrid, layer: str, module: nn.Module, weight: Tensor, inputs: Tensor) -> list[Tensor]:
    """Return <G_b, H> of each sample's gradient (Q, B) before clipping, a tensor per step."""
    return [
        contributions(module, weight, inputs, training.sample_gradients(layer, step).detach()).gamma
        for step in range(STEPS)
    ]


def clipping(training: Hybrid, step: int) -> float:
    """Return the factor of clipping in a step, from the true gradient."""
    model = training.model()
    model.load_state_dict(training.states[step])
    inputs, labels = batch(step, training.dtype)
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch's stub
    norm = float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
    return min(1.0, training.clip / (norm + 1e-6))


@pytest.mark.parametrize("build", FACTORS)
def test_columns_are_the_samples_gradients(tmp_path: Path, build: str) -> None:
    made, layer = FACTORS[build]
    training = Hybrid(sgd("plain"), made)
    source = training.source(tmp_path)
    _, module, weight, inputs = next(found for found in queries(source, training) if found[0] == layer)
    expected = true_parts(training, layer, module, weight, inputs)
    for credit in ("gradient", "step"):
        columns = [
            column
            for block in blocks_of(source, layer)
            for column in block.per_example(module, weight, inputs, credit=credit)
        ]
        assert len(columns) == STEPS
        for step, column in enumerate(columns):
            factor = -0.1 / (1 + step / 4) * clipping(training, step)
            scale = float(expected[step].abs().max()) * abs(factor)
            np.testing.assert_allclose(column, expected[step] * factor, atol=1e-10 * scale)


@pytest.mark.parametrize("name", SGD)
def test_columns_and_decay_sum_to_gamma(tmp_path: Path, name: str) -> None:
    training = Hybrid(sgd(name), mlp)
    source = training.source(tmp_path)
    layer, module, weight, inputs = next(queries(source, training))
    blocks = blocks_of(source, layer)
    gamma = torch.cat([block.project(module, weight, inputs).gamma for block in blocks], dim=1)
    init = contributions(module, weight, inputs, source.initial(layer)[None]).gamma[:, 0]
    settings = {key: SGD[name][key] for key in ("weight_decay", "momentum", "nesterov") if key in SGD[name]}
    rates = np.array([0.1 / (1 + step / 4) for step in range(STEPS)])
    decay = decay_contributions(gamma.T.numpy(), init.numpy(), rates, **{"weight_decay": 0.0, **settings}).T
    step = [c.sum(dim=1) for b in blocks for c in b.per_example(module, weight, inputs, credit="step")]
    np.testing.assert_allclose(torch.stack(step, dim=1).numpy() + decay, gamma, atol=1e-12)
    whole = [c.sum(dim=1) for b in blocks for c in b.per_example(module, weight, inputs)]
    np.testing.assert_allclose((torch.stack(whole, dim=1).numpy() + decay).sum(axis=1), gamma.sum(dim=1), atol=1e-11)


def test_without_momentum_no_earlier_segment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Hybrid(sgd("decay"), mlp)
    source = training.source(tmp_path)
    layer, module, weight, inputs = next(queries(source, training))
    read, original = [], HybridSegment.start

    def counted(segment: HybridSegment, layers: list[str]) -> Start:
        read.append(segment.reader.segment.number)
        return original(segment, layers)

    monkeypatch.setattr(HybridSegment, "start", counted)
    for block in blocks_of(source, layer):
        block.per_example(module, weight, inputs)
    assert read == [0, 1, 2]


def test_segments_are_split_in_any_order(tmp_path: Path) -> None:
    training = Hybrid(sgd("nesterov"), mlp)
    source = training.source(tmp_path)
    layer, module, weight, inputs = next(queries(source, training))
    forwards = [c for b in blocks_of(source, layer) for c in b.per_example(module, weight, inputs, credit="step")]
    backwards = [
        list(block.per_example(module, weight, inputs, credit="step"))
        for segment in reversed(source.segments())
        for block in source.blocks(segment, [layer])
        if isinstance(block, FactorBlock)
    ]
    for one, other in zip(forwards, [c for found in reversed(backwards) for c in found], strict=True):
        assert torch.equal(one, other)


def test_momentum_credits_a_gradient_with_later_updates(tmp_path: Path) -> None:
    """With a momentum of 0.9, a fixed rate and no clipping, a gradient enters all later updates by powers of 0.9."""
    training = Hybrid(sgd("heavy ball"), mlp, clip=1e9)
    source = training.source(tmp_path)
    layer, module, weight, inputs = next(queries(source, training))
    expected = true_parts(training, layer, module, weight, inputs)
    columns = [c for b in blocks_of(source, layer) for c in b.per_example(module, weight, inputs)]
    for step, column in enumerate(columns):
        share = -sum(0.1 / (1 + later / 4) * 0.9 ** (later - step) for later in range(step, STEPS))
        np.testing.assert_allclose(column, expected[step] * share, atol=1e-11)


def test_a_layer_whose_rows_are_not_members_says_so(tmp_path: Path) -> None:
    training = Hybrid(sgd("plain"), mlp)
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, tmp_path, kind="hybrid", checkpoint_every=9, tolerance=1e-5) as recorder:
        for step in range(3):
            with recorder.step(ids(step)):  # the ghost is missing
                training.update(model, optimizer, step)
    source = open_updates(str(tmp_path))
    layer, module, weight, inputs = next(queries(source, training))
    (block,) = source.blocks(source.segments()[0], [layer])
    with pytest.raises(
        NotImplementedError, match=r"layer '0', step 0: expected a sample for each of 4 members, found 5"
    ):
        block.per_example(module, weight, inputs)
    assert BATCH == 5


def test_rounded_layers_cannot_be_split(tmp_path: Path) -> None:
    training = Hybrid(lambda model: torch.optim.Adam(model.parameters()), mlp)
    source = training.source(tmp_path, tolerance=1e-3)
    layer, module, weight, inputs = next(queries(source, training))
    block = next(iter(source.blocks(source.segments()[0], [layer])))
    with pytest.raises(NotImplementedError, match=r"layer '0': .* use replay, or layers with factors"):
        block.per_example(module, weight, inputs)
