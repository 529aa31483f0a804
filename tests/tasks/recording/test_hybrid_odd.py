"""Hybrid archives of odd trainings: kills, gaps, steps that factors do not explain, and damage."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from storage.documents import DamagedError
from storage.updates.archives import Segment
from storage.updates.tables import FACTORS, STILL, WEIGHTS
from tasks.recording import open_updates
from tasks.recording.hybrid import HybridWriter
from tasks.recording.hybrid_blocks import FactorBlock
from tasks.recording.hybrid_source import HybridSource
from tasks.recording.segment import SegmentRecorder
from tasks.tracing import contributions
from tests.tasks.recording.conftest import file_digests
from tests.tasks.recording.hybrids import (
    EVERY,
    STEPS,
    Hybrid,
    Interruption,
    convolutions,
    ids,
    mlp,
    queries,
    sgd,
    tokens,
)
from tests.tasks.recording.test_hybrid import check_against_truth, check_ends


def opened(store: Path) -> HybridSource:
    """Return a finished archive."""
    source = open_updates(str(store))
    assert isinstance(source, HybridSource)
    return source


def forms_of(source: HybridSource, name: str) -> list[str]:
    """Return the form of each row of a parameter."""
    return [record.form for part in source._parts for record in part.records[name]]


def codes_of(source: HybridSource, name: str) -> set[str]:
    """Return the codes of a parameter in all segments."""
    return {part.facts["codes"][name] for part in source._parts}


@pytest.mark.parametrize(
    ("build", "dtype"), [(mlp, torch.float64), (convolutions, torch.float32), (tokens, torch.float64)]
)
def test_an_interrupted_recording_goes_on_to_the_same_files(
    tmp_path: Path, build: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    training = Hybrid(sgd("nesterov"), build, dtype)
    whole = training.recorded(tmp_path / "whole")
    for fail_at in (3, 9, 12, 16):
        with pytest.raises(Interruption):
            training.recorded(tmp_path / "killed", fail_at=fail_at)
    killed = training.recorded(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert file_digests(tmp_path / "killed") == file_digests(tmp_path / "whole")


def clamp(model: nn.Module, step: int) -> None:
    """Change the weights of the first layer after some steps, outside the optimiser."""
    if step in (4, 9, 10):
        with torch.no_grad():
            next(iter(model.parameters())).mul_(0.5)


def clip_values(model: nn.Module, step: int) -> None:
    """Cut the gradient of the first layer at a value in some steps, which no factor does."""
    if step in (2, 11):
        gradient = next(iter(model.parameters())).grad
        assert gradient is not None
        gradient.clamp_(-1e-3, 1e-3)


def drop(model: nn.Module, step: int) -> None:
    """Leave out the update of the first layer in some steps."""
    if step in (0, 5, 8):
        next(iter(model.parameters())).grad = None


def penalised(model: nn.Module, step: int) -> None:
    """Add the gradient of a penalty on the first layer's weights from the second step of each segment on."""
    if step % EVERY:
        weight = next(iter(model.parameters()))
        assert weight.grad is not None
        weight.grad += 0.01 * weight.detach()


@pytest.mark.parametrize(("tolerance", "whole", "code"), [(1e-5, ("plain",), 1e-5), (1e-3, ("int16", "float16"), 5e-4)])
def test_a_layer_that_factors_rarely_explain_keeps_whole_updates(
    tmp_path: Path, tolerance: float, whole: tuple[str, ...], code: float
) -> None:
    training = Hybrid(sgd("heavy ball"), mlp, torch.float32, after_backward=penalised)
    training.recorded(tmp_path, tolerance=tolerance)
    source = opened(tmp_path)
    forms = forms_of(source, "0.weight")
    assert forms[:5] == [FACTORS, WEIGHTS, WEIGHTS, WEIGHTS, WEIGHTS]
    assert set(forms[5:EVERY]) <= set(whole)
    assert forms_of(source, "2.weight") == [FACTORS] * STEPS
    assert source.exactness["0"] == pytest.approx(code, rel=0.5)
    layer, module, weight, inputs = next(queries(source, training))
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            truth = training.update_of(layer, block.start, block.stop)
            error = (block.dense() - truth).flatten(1).norm(dim=1)
            assert bool((error <= 2 * code * truth.flatten(1).norm(dim=1)).all())
            found, true = block.project(module, weight, inputs), contributions(module, weight, inputs, truth)
            np.testing.assert_allclose(found.cosine, true.cosine, atol=2 * code)
    norms = source.ledger["norm/0"].to_numpy()  # 1,200 weights are all in the sample
    expected = training.update_of(layer, 0, STEPS).flatten(1).norm(dim=1)
    np.testing.assert_allclose(norms, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["plain", "heavy ball, decay"])
def test_halves_keep_their_stated_error(tmp_path: Path, name: str) -> None:
    training = Hybrid(sgd(name), mlp, torch.float32)
    training.recorded(tmp_path, tolerance=1e-2)
    source = opened(tmp_path)
    assert set(forms_of(source, "0.weight")) == {"halves"}
    assert source.exactness["0"] == pytest.approx(2e-3, rel=0.01)
    layer, module, weight, inputs = next(queries(source, training))
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            truth = training.update_of(layer, block.start, block.stop)
            error = (block.dense() - truth).flatten(1).norm(dim=1)
            assert bool((error <= 1e-3 * truth.flatten(1).norm(dim=1)).all())
            found, whole = block.project(module, weight, inputs), contributions(module, weight, inputs, truth)
            np.testing.assert_allclose(found.cosine, whole.cosine, atol=2e-3)


@pytest.mark.parametrize("name", ["plain", "nesterov", "heavy ball, decay"])
@pytest.mark.parametrize(
    ("changes", "odd"),
    [({"after_step": clamp}, (4, 9, 10)), ({"after_backward": clip_values}, (2, 11)), ({"after_backward": drop}, ())],
)
def test_steps_that_factors_do_not_explain(
    tmp_path: Path, name: str, changes: dict[str, Callable[[nn.Module, int], None]], odd: tuple[int, ...]
) -> None:
    training = Hybrid(sgd(name), mlp, **changes)  # type: ignore[arg-type]  # only the two changes
    training.recorded(tmp_path)
    source = opened(tmp_path)
    check_ends(source, training)
    assert forms_of(source, "2.weight") == [FACTORS] * STEPS
    first = [part.facts["codes"]["0.weight"] for part in source._parts]
    if changes.get("after_backward") is drop:  # its first step shows no factors
        assert first[0] == "exact"
        assert first[1:] == [FACTORS, FACTORS]
        found = [record.form for record in source._parts[1].records["0.weight"]]
        assert found == [FACTORS, STILL, *[FACTORS] * 5]
    else:
        assert first == [FACTORS] * 3
        assert [step for step, form in enumerate(forms_of(source, "0.weight")) if form == WEIGHTS] == list(odd)
    layer, module, weight, inputs = next(queries(source, training))
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            truth = training.update_of(layer, block.start, block.stop)
            np.testing.assert_allclose(block.dense(), truth, atol=1e-13)
            if isinstance(block, FactorBlock):
                gamma = block.project(module, weight, inputs).gamma
                flat = torch.einsum("qo,toi,qi->qt", inputs @ weight.T, truth, inputs)
                np.testing.assert_allclose(gamma, flat, atol=1e-12)
                columns = block.per_example(module, weight, inputs, credit="step")
                if "decay" not in name and name != "nesterov":
                    sums = torch.stack([column.sum(dim=1) for column in columns], dim=1)
                    np.testing.assert_allclose(sums, gamma, atol=1e-12)


def test_a_gradient_of_more_than_the_batch_is_never_factored(tmp_path: Path) -> None:
    """A penalty on the weights in the loss, at every step: the layer is rounded, and right."""

    def penalise(model: nn.Module, _: int) -> None:
        first = next(iter(model.parameters()))
        assert first.grad is not None
        first.grad += 0.1 * first.detach()

    training = Hybrid(sgd("heavy ball"), mlp, torch.float32, after_backward=penalise)
    training.recorded(tmp_path, tolerance=1e-3)
    source = opened(tmp_path)
    assert codes_of(source, "0.weight") == {"float16"}
    check_against_truth(source, training)


def test_the_stated_error_holds_where_the_rate_falls_within_a_segment(tmp_path: Path) -> None:
    """Rates of 0.1, then of 1e-5 from step 4 on, whose updates the weights' own rounding nearly hides."""

    class Falling(Hybrid):
        def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> torch.Tensor:
            hook = optimizer.register_step_pre_hook(lambda *_: optimizer.param_groups[0].update(lr=rate(step)))
            try:
                return super().update(model, optimizer, step)
            finally:
                hook.remove()

    def rate(step: int) -> float:
        return 0.1 if step < 4 else 1e-5

    training = Falling(sgd("plain"), mlp, torch.float32)
    training.recorded(tmp_path, tolerance=1e-3)
    source = opened(tmp_path)
    assert forms_of(source, "0.weight")[:EVERY] == [*[FACTORS] * 4, *[WEIGHTS] * 3]
    for layer in source.layers:
        errors = []
        for block in source.blocks(source.segments()[0], [layer]):
            truth = training.update_of(layer, block.start, block.stop).double()
            lost = (block.dense().double() - truth).flatten(1).norm(dim=1)
            errors += (lost / truth.flatten(1).norm(dim=1)).tolist()
        assert max(errors) <= source.exactness[layer], layer
        assert max(errors[:4] + errors[5:]) <= 1e-3, layer  # step 4 takes up what the factors before it had rounded


def test_tied_and_shared_calls_are_right(tmp_path: Path) -> None:
    """A module that is called twice has the rows of both calls; a weight of two modules does not have factors."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False)
            self.third, self.last = nn.Linear(40, 40, bias=False), nn.Linear(40, 3)
            self.third.weight = self.second.weight

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            once = self.first(self.first(inputs).relu())
            found: torch.Tensor = self.last(self.third(self.second(once).relu()))
            return found

    training = Hybrid(sgd("heavy ball"), Twice)
    training.recorded(tmp_path)
    source = opened(tmp_path)
    assert codes_of(source, "first.weight") == {FACTORS}
    assert codes_of(source, "second.weight") == {"exact"}
    for segment in source.segments():
        for block in source.blocks(segment, ["first", "second", "third"]):
            name = "second" if block.layer == "third" else block.layer
            truth = training.update_of(name, block.start, block.stop)
            np.testing.assert_allclose(block.dense(), truth, atol=1e-13)


@pytest.mark.parametrize("kept", [range(5, 12), range(0, 3), range(9, 17)])
def test_gaps_are_the_sum_of_their_steps(tmp_path: Path, kept: range) -> None:
    training = Hybrid(sgd("nesterov"), mlp)
    model, optimizer = training.start()
    files: dict[str, bytes] = {}
    segment = Segment(0, 0, STEPS, "it", kind="hybrid")
    recorder = SegmentRecorder(
        model,
        optimizer,
        None,
        segment=segment,
        write=lambda name, data, checked=False: files.update({name: bytes(data)}),
        keep=lambda step: step in kept,
        tolerance=1e-5,
    )
    assert isinstance(recorder._writer, HybridWriter)
    for step in range(STEPS):
        with recorder.step(ids(step), ghosts=ids(step, ghosts=True)):
            training.update(model, optimizer, step)
    rows = recorder.close()["rows"]
    gaps = (kept.start > 0) + (kept.stop < STEPS)
    assert rows == len(kept) + gaps
    forms = [record.form for record in recorder._writer._records["0"]]
    expected = [WEIGHTS] * (kept.start > 0) + [FACTORS] * len(kept) + [WEIGHTS] * (kept.stop < STEPS)
    assert forms == expected


def test_damage_names_the_file(tmp_path: Path) -> None:
    training = Hybrid(sgd("heavy ball"), mlp)
    training.recorded(tmp_path, tolerance=1e-3)
    (folder,) = (tmp_path / "updates").glob("*/files")
    names = [file.relative_to(folder) for file in sorted(folder.rglob("records/*/*"))]
    assert len({name.parts[0] for name in names}) == 3
    for name in names:
        file = folder / name
        data = file.read_bytes()
        file.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
        with pytest.raises(DamagedError, match=f"{name}: fails its checksum"):
            read_all(tmp_path)
        file.write_bytes(data[:-7])
        with pytest.raises(DamagedError, match=f"{name}: "):
            read_all(tmp_path)
        file.unlink()
        with pytest.raises(DamagedError, match=f"{name}: expected a file of a complete stage, found none"):
            read_all(tmp_path)
        file.write_bytes(data)
    read_all(tmp_path)


def read_all(store: Path) -> None:
    """Read every update."""
    source = opened(store)
    for segment in source.segments():
        for block in source.blocks(segment):
            block.dense()


def test_a_source_is_pickled(tmp_path: Path) -> None:
    Hybrid(sgd("heavy ball"), mlp).recorded(tmp_path)
    source = opened(tmp_path)
    other = pickle.loads(pickle.dumps(source))  # noqa: S301  # as a worker gets it
    for segment in source.segments():
        for one, two in zip(source.blocks(segment), other.blocks(segment), strict=True):
            assert torch.equal(one.dense(), two.dense())
