"""Each member's part of an update: gradients by row of a batch, and their whole effect under SGD."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.updates.tables import Settings
from tasks.modules.composed import PieceModule
from tasks.modules.rows import by_sample, declared_counts
from tasks.recording.outside import OutsideWatch, Part
from tasks.recording.pieces import OwnerWatch, parts_of, weight_of
from tasks.recording.programs import Row
from tasks.recording.recurrences import carried_shares, own_share, settings_of, whole_shares
from tasks.recording.splittable import odd_calls, problem_of
from tasks.recording.step_shares import StepShares
from tasks.recording.sums import factor_of, summed
from tasks.recording.taken import TakenGradients
from tasks.recording.taps import Call as Seen

FORGOTTEN = 1e-16  # share of a velocity that does not matter any more


@dataclass(frozen=True)
class Course:
    """What is known of all steps of a training.

    Parameters
    ----------
    rates : learning rates of each step, a number per group
    still : layers by name, with (T,) whether a step left its weights as they were at a rate above 0
    perhaps : the same, and steps of which it is not known
    last : settings of the optimiser's groups after the last step
    """

    rates: Sequence[tuple[float, ...]]
    still: Mapping[str, NDArray[np.bool_]]
    perhaps: Mapping[str, NDArray[np.bool_]]
    last: Sequence[Mapping[str, object]]


class Shares:
    """Watches the layers of a training that is repeated, one update at a time.

    Parameters
    ----------
    modules : recorded layers by name
    chosen : names of the layers to split
    optimizer : torch's SGD, or no update can be split
    course : of the training
    copies : whether changes outside the optimiser's step are measured
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        chosen: Sequence[str],
        optimizer: torch.optim.Optimizer,
        course: Course,
        *,
        copies: bool = False,
    ) -> None:
        self._modules = {name: modules[name] for name in chosen if not isinstance(modules[name], PieceModule)}
        self._pieces = {name: one for name in chosen if isinstance(one := modules[name], PieceModule)}
        self._owners = OwnerWatch(self._pieces)
        self._optimizer, self._course = optimizer, course
        self._tensors = self._live()
        self.outside = OutsideWatch(self._tensors if type(optimizer) is torch.optim.SGD else {}, copies=copies)
        self._taken = TakenGradients(optimizer)
        self._calls: dict[str, list[Seen]] = {}
        self._factors: dict[str, float | None] = {}
        self._fresh: dict[str, bool] = {}
        self._given: set[str] = set()  # layers of which the optimiser got a gradient
        self._updated, self._step = False, -1
        self._measuring = False  # then the calls of the layers are not the training's

    @contextmanager
    def watching(self, row: Row) -> Iterator[None]:
        """Surround the update of a row; the hooks are removed afterwards."""
        self._calls, self._factors, self._fresh = {name: [] for name in self._modules}, {}, {}
        self._updated, self._given, self._step = False, set(), row.step
        self.outside.begin()
        with ExitStack() as hooks:
            for name, module in self._modules.items():
                handle = module.register_forward_hook(
                    lambda _, given, named, made, name=name: self._see(name, given, named, made), with_kwargs=True
                )
                hooks.callback(handle.remove)
            self._owners.begin(hooks, lambda: self._measuring, _members(row))
            hooks.callback(self._optimizer.register_step_pre_hook(lambda *_: self._begin()).remove)
            after = self._optimizer.register_step_post_hook(lambda *_: self._measure())
            # Before the program's own hooks, whose changes are not the optimiser's.
            self._optimizer._optimizer_step_post_hooks.move_to_end(after.id, last=False)  # type: ignore[attr-defined]
            hooks.callback(after.remove)
            yield
        self.outside.look()

    def take(self, row: Row) -> dict[str, StepShares]:
        """Return the factors of the update that was watched, by layer."""
        found = {name: self._split(name, module, row) for name, module in {**self._modules, **self._pieces}.items()}
        self._calls, self._factors = {}, {}
        return found

    def _split(self, name: str, module: nn.Module, row: Row) -> StepShares:
        """Return the factors of a layer's update, or the gradients of a piece by member."""
        members, factor, gradients = _members(row), self._factors.get(name, 0.0), None
        seen = [] if name in self._pieces else self._of(name)
        if name in self._pieces:
            problem, gradients = self._owners.take(name)
        else:
            problem = odd_calls(name, module, seen)
        problem = problem or problem_of(self._optimizer, name, seen, members, factor)
        problem = problem or self._unsteady(name, module, row.step)
        steps = [] if problem or name not in self._given else self._settings(name, weight_of(module), row.step)
        effects = (whole_shares(steps)[0], own_share(steps[0])) if steps and factor else (0.0, 0.0)
        effect, own = ((factor or 0.0) * one for one in effects)
        calls = () if problem else tuple((c.inputs, c.gradients) for c in seen)
        counts, settings = (len(row.examples), len(row.ghosts)), steps[0] if steps else None
        kept, outside = (None, None) if problem else (gradients, self.outside.of(name))
        return StepShares(calls, *counts, effect, own, settings, problem, kept, outside)  # type: ignore[arg-type]  # `odd_calls`

    def _of(self, name: str) -> list[Seen]:
        """Return a layer's calls that a backward pass went through, in the order of the calls."""
        return [call for call in self._calls[name] if call.gradients is not None]

    def _see(self, name: str, given: tuple[object, ...], named: Mapping[str, object], made: object) -> None:
        """Keep a call's inputs, and its output gradients once they are known."""
        if self._measuring or not isinstance(made, Tensor) or not made.requires_grad:
            return
        values = [*given, *named.values()]
        single = values[0] if len(values) == 1 and isinstance(values[0], Tensor) else None
        counts = None if single is None else declared_counts(single)
        call = Seen(None if single is None else by_sample(single.detach().clone(), counts))
        self._calls[name].append(call)
        made.register_hook(  # type: ignore[no-untyped-call]  # torch's stub
            lambda gradient: call.saw(by_sample(gradient.detach().clone(), counts))
        )

    def _live(self) -> dict[Part, Callable[[], Tensor]]:
        """Return what returns the weights to split, and the biases of pieces."""
        found: dict[Part, Callable[[], Tensor]] = {}
        for name, module in self._modules.items():
            found[name, "weight"] = lambda module=module: weight_of(module)  # type: ignore[misc]  # mypy sees no default
        for name, piece in self._pieces.items():
            for part in parts_of(piece):
                found[name, part] = lambda piece=piece, part=part: parts_of(piece)[part]  # type: ignore[misc]
        return found

    def _begin(self) -> None:
        """Note which layers have no velocity yet, their gradients, and changes before the optimiser's."""
        self.outside.look()
        self._taken.note(live() for live in self._tensors.values())
        for name, module in {**self._modules, **self._pieces}.items():
            self._fresh[name] = self._taken.momentum(weight_of(module)) is None
        self._owners.keep()

    def _measure(self) -> None:
        """Compare each layer's gradient, as the optimiser saw it, with the sum of its members' parts."""
        self._measuring = self._updated = True
        for name, module in self._modules.items():
            gradient, calls = self._taken.of(weight_of(module)), self._of(name)
            if not self._note(name, module):
                self._factors[name] = 0.0
                continue
            if gradient is None or not calls or odd_calls(name, module, calls):
                self._factors[name] = 0.0 if gradient is None else None
                continue
            kept = [(call.inputs, call.gradients) for call in calls]
            self._factors[name] = factor_of([summed(module, kept, gradient)])  # type: ignore[arg-type]  # `odd_calls`
        self._owners.measure()  # which gives its modules other weights for a while
        self.outside.take()
        self._count_unused()
        for name, piece in self._pieces.items():
            if not self._note(name, piece):
                self._factors[name] = 0.0
                continue
            totals, given = (
                self._owners.totals(name),
                {part: self._taken.of(one) for part, one in parts_of(piece).items()},
            )
            pairs = [(totals[part], one) for part, one in given.items() if one is not None and part in totals]
            reached = [part for part, one in given.items() if one is not None or part in totals]
            taken = any(one is not None for one in given.values())
            self._factors[name] = (factor_of(pairs) if len(pairs) == len(reached) else None) if taken else 0.0
        self._measuring = False

    def _count_unused(self) -> None:
        """Take back what the parts of earlier steps count for momentum that this step does not use, without a gradient.

        Where the step leaves a layer as it is, it is known that they do not count it.
        """
        for (name, part), live in self._tensors.items():
            weight, step = live(), self._step
            index, momentum = self._taken.group(weight), self._taken.momentum(weight)
            if weight.grad is not None or index is None or momentum is None or self._course.perhaps[name][step]:
                continue
            steps = self._settings(name, weight, step)
            counted, later = carried_shares([steps[0], *steps])[:2]  # before this step, as if it used it, and after it
            if later != counted:
                self.outside.add(name, part, (later - counted) * momentum)

    def _note(self, name: str, module: nn.Module) -> bool:
        """Note that the optimiser got a gradient of a layer; return False where it has a gradient but no group."""
        weight = weight_of(module)
        if weight.grad is None:
            return True
        if self._taken.group(weight) is None:
            return False
        if weight.requires_grad:
            self._given.add(name)
        return True

    def _other_group(self, piece: PieceModule, index: int) -> str:
        """Return the first setting in which the groups of a piece's weight and bias differ, "" for none."""
        groups, bias = self._optimizer.param_groups, parts_of(piece).get("bias")
        found = [group for group in groups if bias is not None and any(p is bias for p in group["params"])]
        keys = ("lr", "momentum", "dampening", "nesterov")
        return next((key for group in found for key in keys if group[key] != groups[index][key]), "")

    def _unsteady(self, name: str, module: nn.Module, step: int) -> str:
        """Return why the effect of a step's gradient is not known, "" if it is."""
        if not self._updated and not self._course.still[name][step]:
            return f"layer {name!r}, step {step}: expected an update by the optimiser, found another"
        if not self._factors.get(name):
            return ""  # no gradient, no effect; the weight of a frozen layer has no group
        index = self._taken.group(weight_of(module))
        assert index is not None, name
        if isinstance(module, PieceModule) and (other := self._other_group(module, index)):
            return f"layer {name!r}: expected one {other} for weight and bias, found two"
        group, last = self._optimizer.param_groups[index], self._course.last[index]
        if not group["momentum"] and not last["momentum"]:
            return ""
        for key in ("momentum", "dampening", "nesterov"):
            if group[key] != last[key]:
                return (
                    f"layer {name!r}, step {step}: expected one {key} in all steps, found {group[key]} and {last[key]}"
                )
        reach = int(np.ceil(np.log(FORGOTTEN) / np.log(group["momentum"]))) if group["momentum"] < 1 else None
        later = self._course.perhaps[name][step + 1 :][:reach]
        if later.any():
            at = step + 1 + int(later.argmax())
            return f"layer {name!r}, step {at}: expected an update in each step under momentum, found the same weights"
        return ""

    def _settings(self, name: str, weight: Tensor, step: int) -> list[Settings]:
        """Return the settings of a step, and of the later steps that its gradient reaches through momentum."""
        index = self._taken.group(weight)
        assert index is not None, name
        group = self._optimizer.param_groups[index]
        rates = (
            [lrs[index] for lrs in self._course.rates[step:]]
            if group["momentum"]
            else [self._course.rates[step][index]]
        )
        return [
            settings_of({**group, "lr": rate}, fresh=k == 0 and self._fresh[name], scale=1.0)
            for k, rate in enumerate(rates)
        ]


def _members(row: Row) -> int:
    """Return the number of examples and ghosts of a step."""
    return len(row.examples) + len(row.ghosts)
