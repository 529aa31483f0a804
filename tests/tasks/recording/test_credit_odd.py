"""Both credits where something else than the optimiser's step changes weights, or its gradient is not the samples'."""

import gc
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.updates.tables import ROUNDED, WEIGHTS
from tasks.recording import UpdateRecorder, UpdateSource
from tasks.recording.columns import Credit
from tasks.recording.hybrid_source import HybridSource
from tasks.tracing import contributions
from tests.tasks.recording.hybrids import EVERY, SGD, STEPS, Hybrid, ids, mlp, sgd
from tests.tasks.recording.test_credit import EXAMPLES, KINDS, moved, rates, recorded, scale_of_clipping

NAMES = ["plain", "heavy ball, decay", "nesterov", "dampening", "nesterov, foreach"]
ODD = (4, 9, 10)
Change = Callable[[nn.Module, int], None]


def first(model: nn.Module) -> nn.Parameter:
    """Return the weight of the first layer."""
    found: nn.Parameter = next(iter(model.parameters()))
    return found


def shrink(model: nn.Module, step: int) -> None:
    """Change most weights after some steps."""
    if step in ODD:
        with torch.no_grad():
            first(model).mul_(0.7)


def clamp_unseen(model: nn.Module, step: int) -> None:
    """Change few weights after some steps, so that torch does not count it."""
    if step in ODD:
        first(model).data[3:5].clamp_(-0.05, 0.05)


def negate_unseen(model: nn.Module, step: int) -> None:
    """Change the signs of all weights after some steps, which leaves sums of bits as they are."""
    if step in ODD:
        first(model).data.neg_()


def swap_unseen(model: nn.Module, step: int) -> None:
    """Swap two columns after some steps, which leaves sums of rows as they are."""
    if step in ODD:
        first(model).data[:, [0, 1]] = first(model).data[:, [1, 0]]


def cut(model: nn.Module, step: int) -> None:
    """Cut each number of the gradient of some steps, which is then not a sum of the samples' gradients."""
    if step in ODD:
        gradient = first(model).grad
        assert gradient is not None
        gradient.clamp_(-1e-3, 1e-3)


def some_inputs() -> Tensor:
    """Return three random inputs of the first layer."""
    return torch.randn(3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


class Truth:
    """The gradients of a training's samples, and what else changed the first layer's weights, in float64."""

    def __init__(self, training: Hybrid, name: str, change: Change) -> None:
        self.name = name
        decay, weights = SGD[name].get("weight_decay", 0.0), [state["0.weight"] for state in training.states]
        steps = range(STEPS)
        self.parts = [training.sample_gradients("0", t).detach() * scale_of_clipping(training, t) for t in steps]
        taken = [one.sum(dim=0) for one in self.parts]
        if change is cut:
            taken = [one.clamp(-1e-3, 1e-3) if t in ODD else one for t, one in enumerate(taken)]
        pulls = [decay * before for before in weights[:-1]]
        made = moved(name, [one + pull for one, pull in zip(taken, pulls, strict=True)])
        self.decays, self.taken = moved(name, pulls), taken
        self.updates = [after - before for before, after in pairwise(weights)]
        self.outside = [update - one for update, one in zip(self.updates, made, strict=True)]

    def effect(self, gradient: Tensor, step: int) -> Tensor:
        """Return what a gradient of one step does to the weights in all steps."""
        return torch.stack(self.each(gradient, step)).sum(dim=0)

    def each(self, gradient: Tensor, step: int) -> list[Tensor]:
        """Return what a gradient of one step does to the weights in each step."""
        return moved(self.name, [gradient if t == step else torch.zeros_like(gradient) for t in range(STEPS)])

    def expected(self, step: int, credit: Credit, *, explained: bool) -> Tensor:
        """Return what each member is credited with (B, *shape).

        Parameters
        ----------
        explained : whether the parts of the samples are known
        """
        parts = self.parts[step] if explained else torch.zeros_like(self.parts[step])
        if credit == "step":
            found = self.each(parts, step)[step]
            rest = self.updates[step] - self.decays[step] - found.sum(dim=0)
        else:
            found, rest = self.effect(parts, step), self.outside[step]
            rest = rest + self.effect(self.taken[step] - parts.sum(dim=0), step)
        found[:EXAMPLES] += rest / EXAMPLES
        return found


CASES: list[tuple[str, str, Change]] = [
    *[(kind, name, shrink) for kind in KINDS for name in NAMES],
    *[("replay", "nesterov", change) for change in (clamp_unseen, negate_unseen, swap_unseen)],
    *[("hybrid", name, cut) for name in NAMES],
]


@pytest.mark.parametrize(("kind", "name", "change"), CASES)
def test_the_examples_of_a_step_share_what_is_not_explained(
    tmp_path: Path, kind: str, name: str, change: Change
) -> None:
    training = Hybrid(sgd(name), mlp, after_backward=change) if change is cut else Hybrid(sgd(name), after_step=change)
    source = recorded(tmp_path, training, kind)
    truth, weight = Truth(training, name, change), source.final("0")
    module, inputs = training.model().get_submodule("0"), some_inputs()
    if isinstance(source, HybridSource):
        forms = [record.form for part in source._parts for record in part.records["0.weight"]]
        assert [step for step, form in enumerate(forms) if form == WEIGHTS] == list(ODD)
    credits: tuple[Credit, ...] = ("gradient", "step")
    for credit in credits:
        columns = columns_of(source, module, weight, inputs, credit)
        for step, found in enumerate(columns):
            explained = kind == "replay" or step not in ODD
            parts = truth.expected(step, credit, explained=explained)
            wanted = contributions(module, weight, inputs, parts).gamma
            np.testing.assert_allclose(found, wanted, atol=1e-7 * float(wanted.abs().max()), err_msg=f"{credit} {step}")
        total = contributions(module, weight, inputs, torch.stack(truth.updates) - torch.stack(truth.decays)).gamma
        sums = torch.stack([one.sum(dim=1) for one in columns], dim=1).sum(dim=1)
        np.testing.assert_allclose(sums, total.sum(dim=1), atol=1e-7 * float(total.abs().max()))


def columns_of(
    source: UpdateSource, module: nn.Module, weight: Tensor, inputs: Tensor, credit: Credit = "gradient"
) -> list[Tensor]:
    """Return the columns of all steps of the first layer, its segments split from the last to the first."""
    blocks = [list(source.blocks(segment, ["0"], members=True)) for segment in reversed(source.segments())]
    found = [[one for b in part for one in b.per_example(module, weight, inputs, credit=credit)] for part in blocks]
    return [one for part in reversed(found) for one in part]


@pytest.mark.parametrize("name", ["heavy ball", "dampening"])
def test_parts_sum_to_gamma_where_a_segment_ends_with_whole_updates(tmp_path: Path, name: str) -> None:
    """A penalty from the second step of each segment on: the momentum after them comes from the checkpoint."""

    def penalised(model: nn.Module, step: int) -> None:
        weight = first(model)
        if step % EVERY and step < 2 * EVERY:
            assert weight.grad is not None
            weight.grad += 0.05 * weight.detach()

    training = Hybrid(sgd(name), mlp, after_backward=penalised)
    source = recorded(tmp_path, training, "hybrid")
    assert isinstance(source, HybridSource)
    forms = [record.form for part in source._parts for record in part.records["0.weight"]]
    assert forms[EVERY - 1] in ROUNDED
    assert forms[2 * EVERY - 1] in ROUNDED
    module, inputs = training.model().get_submodule("0"), some_inputs()
    updates = training.update_of("0", 0, STEPS)
    gamma = contributions(module, source.final("0"), inputs, updates).gamma
    columns = columns_of(source, module, source.final("0"), inputs)
    sums = torch.stack([one.sum(dim=1) for one in columns]).sum(dim=0)
    np.testing.assert_allclose(sums, gamma.sum(dim=1), atol=2e-5 * float(gamma.abs().sum()))
    late = torch.stack([one.sum(dim=1) for one in columns[2 * EVERY :]]).sum(dim=0)
    assert float((late - gamma[:, 2 * EVERY :].sum(dim=1)).abs().max()) > 1e-3  # momentum that earlier steps answer for


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["heavy ball", "nesterov, foreach"])
def test_parts_sum_to_gamma_where_momentum_waits(tmp_path: Path, kind: str, name: str) -> None:
    """In two steps the layer gets no gradient, so that its momentum waits; something else changes its weights there."""
    waits = (5, 11)

    def leave(model: nn.Module, step: int) -> None:
        if step in waits:
            first(model).grad = None

    def halve(model: nn.Module, step: int) -> None:
        if step in waits:
            first(model).data.mul_(0.5)

    training = Hybrid(sgd(name), mlp, after_backward=leave, after_step=halve)
    source = recorded(tmp_path, training, kind)
    module, inputs = training.model().get_submodule("0"), some_inputs()
    updates = training.update_of("0", 0, STEPS)
    gamma = contributions(module, source.final("0"), inputs, updates).gamma
    columns = columns_of(source, module, source.final("0"), inputs)
    sums = torch.stack([one.sum(dim=1) for one in columns]).sum(dim=0)
    np.testing.assert_allclose(sums, gamma.sum(dim=1), atol=1e-7 * float(gamma.abs().max()))
    if kind == "hybrid":  # it knows at step 3 that the momentum waits at step 5
        parts = training.sample_gradients("0", 3).detach() * scale_of_clipping(training, 3)
        steps = [t for t in range(STEPS) if t not in waits]
        pulls = [parts if t == 3 else torch.zeros_like(parts) for t in steps]
        effect = torch.stack(moved(name, pulls, [rates()[t] for t in steps])).sum(dim=0)
        wanted = contributions(module, source.final("0"), inputs, effect).gamma
        np.testing.assert_allclose(columns[3], wanted, atol=1e-7 * float(wanted.abs().max()))


def test_no_gradient_is_kept_between_steps(tmp_path: Path) -> None:
    """Memory: what the loop frees after a step is free."""
    training, kept = Hybrid(sgd("nesterov, foreach"), mlp), list[bool]()
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, tmp_path, kind="hybrid", tolerance=1e-5) as recorder:
        for step in range(3):
            with recorder.step(ids(step), ghosts=ids(step, ghosts=True)):
                training.update(model, optimizer, step)
            gradient = first(model).grad
            assert gradient is not None
            seen = weakref.ref(gradient)
            optimizer.zero_grad()
            del gradient
            gc.collect()
            kept.append(seen() is not None)
    assert kept == [False] * 3


@pytest.mark.parametrize("where", ["before the optimiser's step", "in a hook after it", "in both"])
def test_changes_are_told_from_the_optimisers_wherever_they_are_made(tmp_path: Path, where: str) -> None:
    class Constrained(Hybrid):
        def start(self) -> tuple[nn.Module, torch.optim.Optimizer]:
            model, optimizer = super().start()

            def halve(*_: object) -> None:
                with torch.no_grad():
                    first(model)[::2].mul_(0.9)

            if where != "in a hook after it":
                optimizer.register_step_pre_hook(halve)
            if where != "before the optimiser's step":
                optimizer.register_step_post_hook(halve)
            return model, optimizer

    training = Constrained(sgd("heavy ball"), mlp)
    source = recorded(tmp_path, training, "replay", Constrained)
    module, inputs = training.model().get_submodule("0"), some_inputs()
    truth, weight = Truth(training, "heavy ball", shrink), source.final("0")
    for step, found in enumerate(columns_of(source, module, weight, inputs)):
        wanted = contributions(module, weight, inputs, truth.expected(step, "gradient", explained=True)).gamma
        np.testing.assert_allclose(found, wanted, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("optimised", [True, False])
def test_a_frozen_layer_that_something_else_moves_is_split_equally(tmp_path: Path, optimised: bool) -> None:
    class Frozen(Hybrid):
        def start(self) -> tuple[nn.Module, torch.optim.Optimizer]:
            model, optimizer = super().start()
            first(model).requires_grad_(False)
            if not optimised:
                optimizer = torch.optim.SGD(list(model.parameters())[1:], lr=0.1, momentum=0.9)
            return model, optimizer

    training = Frozen(sgd("heavy ball"), mlp, after_step=shrink)
    source = recorded(tmp_path, training, "replay", Frozen)
    module, inputs = training.model().get_submodule("0"), some_inputs()
    gamma = contributions(module, source.final("0"), inputs, training.update_of("0", 0, STEPS)).gamma
    columns = torch.stack(columns_of(source, module, source.final("0"), inputs), dim=1)
    shared = (gamma / EXAMPLES)[:, :, None] * (torch.arange(columns.shape[2]) < EXAMPLES)
    assert gamma.count_nonzero() == len(inputs) * len(ODD)
    np.testing.assert_allclose(columns, shared, atol=1e-12)
