"""Hybrid archives against the true updates, at their stated exactness, for every optimiser and code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from storage.updates.tables import FACTORS
from tasks.recording.hybrid_blocks import FactorBlock, RoundedBlock
from tasks.recording.hybrid_source import HybridSource
from tasks.tracing import contributions
from tests.tasks.recording.hybrids import (
    EVERY,
    OTHERS,
    SGD,
    STEPS,
    Hybrid,
    convolutions,
    mlp,
    queries,
    sgd,
    tokens,
)

BUILDS = {"mlp": (mlp, 2), "convolutions": (convolutions, 2), "tokens": (tokens, 1)}  # and layers with factors


def check_against_truth(source: HybridSource, training: Hybrid, atol: float | None = None) -> None:
    """Compare cosines and updates of every step with the true ones; segments are read backwards.

    Parameters
    ----------
    atol : largest error of an update, relative to its norm; None for the stated error of cosines
    """
    for layer, module, weight, inputs in queries(source, training):
        limit = source.exactness[layer] if atol is None else atol
        for segment in reversed(source.segments()):
            covered = segment.start
            for block in source.blocks(segment, [layer]):
                assert (block.start, block.recorded) == (covered, True)
                covered = block.stop
                truth = training.update_of(layer, block.start, block.stop)
                found, expected = (
                    block.project(module, weight, inputs),
                    contributions(module, weight, inputs, truth.to(inputs)),
                )
                assert float((found.cosine - expected.cosine).abs().max()) <= max(limit, 1e-15)
                scale = expected.preactivation_norm[:, None] * expected.norm
                assert float(((found.gamma - expected.gamma).abs() / scale.clamp(min=1e-30)).max()) <= 4 * limit + 1e-15
                sizes = truth.flatten(1).norm(dim=1)
                errors = (block.dense(truth.dtype) - truth).flatten(1).norm(dim=1)
                assert float((errors / sizes.clamp(min=1e-30)).max()) <= max(limit, 1e-15)
                after = block.weights[-1] - training.states[block.stop][f"{layer}.weight"]
                assert float(after.norm()) <= max(limit, 1e-14) * float(sizes.sum() + 1) * EVERY
                if block.biases is not None:  # bit for bit
                    assert torch.equal(block.biases[-1], training.states[block.stop][f"{layer}.bias"])
            assert covered == segment.stop


def check_ends(source: HybridSource, training: Hybrid) -> None:
    """Compare the weights before the first and after the last step, bit for bit."""
    assert (source.kind, source.steps) == ("hybrid", STEPS)
    for layer in source.layers:
        assert torch.equal(source.initial(layer), training.states[0][f"{layer}.weight"])
        assert torch.equal(source.final(layer), training.states[-1][f"{layer}.weight"])
        bias = source.final_bias(layer)
        assert bias is None or torch.equal(bias, training.states[-1][f"{layer}.bias"])


def opened(training: Hybrid, store: Path, tolerance: float = 1e-5) -> HybridSource:
    """Record a training, and return its archive."""
    source = training.source(store, tolerance=tolerance)
    assert isinstance(source, HybridSource)
    return source


@pytest.mark.parametrize(
    ("build", "name"),
    [*(("mlp", name) for name in SGD), ("convolutions", "nesterov"), ("tokens", "heavy ball, decay")],
)
def test_factors_follow_torch_to_1e_12(tmp_path: Path, build: str, name: str) -> None:
    made, count = BUILDS[build]
    training = Hybrid(sgd(name), made)
    source = opened(training, tmp_path)
    kinds = {block.layer: type(block) for segment in source.segments() for block in source.blocks(segment)}
    assert sum(kind is FactorBlock for kind in kinds.values()) == count, kinds
    check_ends(source, training)
    check_against_truth(source, training, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("name", ["heavy ball, decay", *OTHERS])
def test_every_optimiser_within_the_stated_error(tmp_path: Path, name: str, tolerance: float) -> None:
    training = Hybrid(OTHERS.get(name) or sgd(name), convolutions, torch.float32)
    source = opened(training, tmp_path, tolerance)
    check_ends(source, training)
    check_against_truth(source, training)
    assert max(source.exactness.values()) <= max(tolerance, 4e-5 if name not in OTHERS and tolerance else 0)
    if name in OTHERS or not tolerance:
        stated = {1e-2: 1e-2, 1e-3: 5e-4}.get(tolerance, 0.0)
        assert source.exactness == {"1": stated, "4": stated, "7": min(stated, 5e-4)}
        kinds = {type(b) for segment in source.segments() for b in source.blocks(segment)}
        assert (RoundedBlock in kinds) == (stated > 0)
    if tolerance == 0:
        for segment in source.segments():
            for block in source.blocks(segment):
                assert torch.equal(block.weights[-1], training.states[block.stop][f"{block.layer}.weight"])


def test_a_smaller_tolerance_makes_a_larger_archive(tmp_path: Path) -> None:
    sizes = []
    for tolerance in (1e-2, 1e-3, 0.0):
        store = tmp_path / str(tolerance)
        Hybrid(OTHERS["adam"], mlp, torch.float32).recorded(store, tolerance=tolerance)
        files = [file for file in store.rglob("*") if file.is_file() and "segment" in str(file)]
        sizes.append(
            sum(file.stat().st_size for file in files if "parquet" not in file.name and "json" not in file.name)
        )
    n, biases = 40 * 30 + 30 * 20 + 20 * 3, 53
    weights, last = 40 * 30 + 30 * 20, 20 * 3  # the last layer has too few outputs for 8 bits
    steps = 4 * 50 + weights * 6.5 / 8, 4 * 50 + weights * 7.5 / 8  # levels of about 7 bits, compressed
    least, most = (each + 2 * last + 4 * (3 + biases) for each in steps)
    assert STEPS * least <= sizes[0] <= STEPS * (most + 64) + 3 * 6 * 8
    for size, each in zip(sizes[1:], [2 * n + 4 * 53, 4 * n], strict=True):
        assert STEPS * (each + 4 * biases) <= size <= STEPS * (each + 4 * biases + 48) + 3 * 6 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_the_training_is_bitwise_that_of_an_unrecorded_run(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    training = Hybrid(OTHERS.get(name) or sgd(name), convolutions, dtype)
    plain, dice = training.plain(), torch.get_rng_state()
    recorded = training.recorded(tmp_path)
    assert all(torch.equal(plain[key], recorded[key]) for key in plain)
    assert torch.equal(dice, torch.get_rng_state())


def test_no_hook_stays(tmp_path: Path) -> None:
    training = Hybrid(sgd("heavy ball"))
    held = []
    training.after_step = lambda model, _: held.append(model)
    training.recorded(tmp_path)
    for module in held[-1].modules():
        assert not module._forward_hooks
        assert not module._backward_hooks


def test_clipping_is_measured_not_asked_for(tmp_path: Path) -> None:
    """The loop says nothing about clipping, and factors follow it; the largest norm is exceeded in some steps only."""
    training = Hybrid(sgd("heavy ball"), clip=0.7)
    source = opened(training, tmp_path)
    scales = np.array([r.settings.scale for part in source._parts for r in part.records["0.weight"]])
    assert 0 < (scales < 1).sum() < STEPS
    assert (scales == 1).any()
    assert all(r.form == FACTORS for part in source._parts for r in part.records["0.weight"])
