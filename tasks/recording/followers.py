"""A follower of one layer: it finds out whether a step's factors explain the update of the layer's weight."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from storage.updates.bits import BITS, Ints
from storage.updates.parameters import Layer, Parameter
from storage.updates.tables import Settings
from tasks.recording.factors import Factors, factorable, sample_axes
from tasks.recording.fingerprints import turn_of
from tasks.recording.halves import HALVED, halved, pack_halves
from tasks.recording.recurrences import State, advance, settings_of
from tasks.recording.taken import TakenGradients
from tasks.recording.taps import Call

SAMPLE = 2**14  # weights of the sampled rows
MEASURED = 8  # rows of the gradient from which clipping is measured
FEW = 32  # output gradients in which such rows are looked for first
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # of a gradient or an update, relative to its norm
# The stated error over that of the sampled rows. These hold SAMPLE weights or all, so that roundings average to within
# 1 %; the rest is for samples whose updates are up to twice as large as those of all rows.
MARGIN = 2.0
ROUNDINGS = 8  # largest number of roundings of a weight in a step
NEAR_ONE = {torch.float32: 1e-5, torch.float64: 1e-13}  # a factor of clipping that is one but for rounding


@dataclass(frozen=True)
class Found:
    """The factors of a step and the settings of the optimiser.

    Parameters
    ----------
    inputs, gradients : of the layer's calls, in order
    shapes : of all inputs and all gradients, one after the other
    settings : of the optimiser's step
    sampled : (k, n) float64, the gradient of the sampled rows
    momentum : (k, n) float64, the momentum of the sampled rows before the step, None without one
    """

    inputs: list[Tensor]
    gradients: list[Tensor]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    settings: Settings
    sampled: Tensor
    momentum: Tensor | None

    @property
    def numbers(self) -> int:
        """The number of values in the factors."""
        return sum(prod(shape) for shape in self.shapes)


class Follower:
    """Follows a layer's weight through the steps of a segment. Holds the sampled rows of the weight."""

    def __init__(
        self, layer: Layer, parameter: Parameter, module: nn.Module, optimizer: torch.optim.Optimizer, index: int
    ) -> None:
        self.layer, self.parameter, self.module, self.index = layer, parameter, module, index
        self._optimizer, self._taken = optimizer, TakenGradients(optimizer)
        rows = max(1, min(parameter.shape[0], SAMPLE * parameter.shape[0] // max(1, parameter.size)))
        self.rows = torch.from_numpy(np.unique(np.linspace(0, parameter.shape[0] - 1, rows).round().astype(np.int64)))
        self._momentum: Tensor | None = None
        self.settings = (
            Settings()
        )  # of the optimiser's last step; its defaults where the optimiser does not have the weight
        self._drift: Tensor | None = None  # of the sampled rows that a reader has, from the weights
        self.error = 0.0  # largest error of a reader's update, relative to it, with a margin
        # The weight's version after the last row, at the start of a block, and before and after the optimiser's step.
        self._ended = self._begun = self._before = self._stepped = self._version

    @property
    def weight(self) -> Tensor:
        """The live weight."""
        return self._parameter.detach()

    @property
    def _parameter(self) -> Tensor:
        """The weight as the optimiser has it."""
        found = self.module.weight
        assert isinstance(found, Tensor)
        return found

    @property
    def stood(self) -> bool:
        """Whether torch did not see the weight change since the last row."""
        return self._version == self._begun == self._ended

    @property
    def touched(self) -> bool:
        """Whether torch saw the weight change since the last row, and not in the optimiser's step."""
        return not self._ended == self._begun == self._before or self._version != self._stepped

    def begin(self) -> None:
        """Note that a block begins. The recorder has compared all bits of a weight that its checks read whole."""
        self._begun = self._version
        if not turn_of(0).leaves(self.parameter):
            self._ended = self._begun

    def end_row(self) -> None:
        """Note that a row ends."""
        self._ended = self._version

    def sample(self) -> Ints:
        """Return the bits of the sampled rows (k n,) of the present weight, a copy."""
        bits: Ints = self._rows(self.weight).cpu().numpy().view(BITS[self.parameter.dtype]).reshape(-1)
        return bits

    def before_step(self) -> None:
        """Copy what the optimiser's step changes and the check needs: the momentum of the sampled rows."""
        self._before, held = self._version, self.momentum()
        self._taken.note([self._parameter])
        self._momentum = None if held is None else self._rows(held).double().cpu()

    @torch.no_grad()
    def after_step(self, calls: Sequence[Call]) -> Found | None:
        """Return what explains the gradient that the optimiser took; None where the layer's calls do not."""
        self._stepped = self._version
        gradient, parts, group = self._taken.of(self._parameter), self._usable(calls), self._group()
        if group is None:
            self.settings = Settings()
            return None
        if gradient is None:  # the optimiser leaves weight and momentum alone
            self.settings = Settings(lr=float(group["lr"]))
            return None
        self.settings = settings_of(group, fresh=bool(group["momentum"]) and self._momentum is None, scale=1.0)
        if not parts:
            return None
        energy = _energies(parts)
        largest = energy.topk(min(MEASURED, len(energy))).indices
        chosen = torch.cat([largest, self.rows.to(largest.device)])
        made = reduce(torch.add, [part.gradient_rows(chosen) for part in parts]).double()
        taken = gradient.reshape(len(gradient), -1)[largest].double()
        scale = _scale(taken, made[: len(largest)], self.weight.dtype)
        if scale is None:
            return None
        inputs, gradients = [part.inputs for part in parts], [part.gradients for part in parts]
        shapes = _whole_shape(inputs), _whole_shape(gradients)
        settings = replace(self.settings, scale=scale)
        return Found(inputs, gradients, shapes, settings, made[len(largest) :].cpu(), self._momentum)

    def explains(self, found: Found, before: Ints, now: Ints, limit: float) -> bool:
        """Return whether factors and settings give the update of the sampled rows; notes the rounding.

        Parameters
        ----------
        limit : largest error of an update, relative to it
        """
        old, new = (self._floats(bits) for bits in (before, now))
        update = advance(State(old, found.momentum), found.settings, found.sampled)
        size, rest = float(torch.linalg.vector_norm(update)), new - old - update
        error = float(torch.linalg.vector_norm(rest))
        eps = torch.finfo(self.weight.dtype).eps
        if not error <= TOLERANCE[self.weight.dtype] * size + ROUNDINGS * eps * float(torch.linalg.vector_norm(old)):
            return False
        if size and MARGIN * error > limit * size:
            return False
        self._note(error, size)
        self._drift = rest if self._drift is None else self._drift + rest
        return True

    def restore(self, before: Ints, now: Ints) -> None:
        """Note the error of a row that restores the weights: what a reader's weights had drifted."""
        if self._drift is not None:
            size = float(torch.linalg.vector_norm(self._floats(now) - self._floats(before)))
            self._note(float(torch.linalg.vector_norm(self._drift)), size)
        self._drift = None

    def halves(self, found: Found) -> Tensor | None:
        """Return the record of factors in 16 bits; None where these round the sampled rows too much."""
        inputs, gradients = halved(found.inputs), halved(found.gradients)
        made = torch.zeros_like(found.sampled)
        for values, outputs in zip(inputs[1], gradients[1], strict=True):
            wide = [
                part.to(self.weight.dtype) * scale for part, scale in ((values, inputs[0]), (outputs, gradients[0]))
            ]
            made += Factors(self.module, self.parameter.shape, *wide).gradient_rows(self.rows).double()
        error = float(torch.linalg.vector_norm(made - found.sampled))
        if not error <= HALVED / 2 * float(torch.linalg.vector_norm(found.sampled)):
            return None
        return pack_halves(inputs, gradients)

    def norm(self, before: Ints, now: Ints) -> float:
        """Return the norm of an update; above SAMPLE weights an estimate from the sampled rows."""
        change = self._floats(now) - self._floats(before)
        share = self.parameter.size / max(1, change.numel())
        return float(torch.linalg.vector_norm(change)) * math.sqrt(share)

    @property
    def _version(self) -> tuple[int, int]:
        """What changes where torch changes the weight in place, or where another tensor takes its place."""
        return self.weight._version, self.weight.data_ptr()

    def _note(self, error: float, size: float) -> None:
        """Keep the largest relative error."""
        if size:
            self.error = max(self.error, MARGIN * error / size)

    def _usable(self, calls: Sequence[Call]) -> list[Factors]:
        """Return the factors of each call; none where calls have no axis of samples or more numbers than the weight."""
        axes, dtype, found = sample_axes(self.module), self.weight.dtype, []
        for call in calls:
            values, gradients = call.inputs, call.gradients
            if values is None or gradients is None or values.ndim < axes or {values.dtype, gradients.dtype} != {dtype}:
                return []
            found.append(Factors(self.module, self.parameter.shape, values, gradients))
        numbers = sum(part.inputs.numel() + part.gradients.numel() for part in found)
        alike = len({(part.inputs.shape[1:], part.gradients.shape[1:]) for part in found}) == 1
        return found if alike and 0 < numbers < self.parameter.size else []

    def momentum(self) -> Tensor | None:
        """Return the live momentum buffer of the weight, None without one."""
        return self._taken.momentum(self._parameter)

    def _group(self) -> Mapping[str, Any] | None:  # Any: an optimiser's own
        """Return the optimiser's group of the weight."""
        index = self._taken.group(self._parameter)
        return None if index is None else self._optimizer.param_groups[index]

    def _rows(self, values: Tensor) -> Tensor:
        """Return the sampled rows (k, n) of a tensor of the weight's shape."""
        return values.detach().reshape(len(values), -1)[self.rows.to(values.device)]

    def _floats(self, bits: Ints) -> Tensor:
        """Return sampled rows (k, n) in float64."""
        return torch.from_numpy(bits).view(self.weight.dtype).double().reshape(len(self.rows), -1)


def find_followers(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layers: Sequence[Layer],
    parameters: Sequence[Parameter],
) -> dict[str, Follower]:
    """Return, by name, the layers whose factors may explain their updates: torch's own SGD, an untied weight."""
    if type(optimizer) is not torch.optim.SGD:
        return {}
    members = [id(p) for group in optimizer.param_groups for p in group["params"]]
    by_name = {parameter.name: parameter for parameter in parameters}
    used, modules = [layer.weight for layer in layers], dict(model.named_modules(remove_duplicate=False))
    found = {}
    for layer in layers:
        if (module := modules.get(layer.name)) is None:  # a piece of a module, which is not called by itself
            continue
        parameter = by_name[layer.weight]
        weight = getattr(module, "weight", None)
        if not factorable(module) or used.count(layer.weight) > 1 or id(weight) not in members:
            continue
        if parameter.dtype in ("float32", "float64") and members.count(id(weight)) == 1:
            found[layer.name] = Follower(layer, parameter, module, optimizer, members.index(id(weight)))
    return found


def _energies(parts: Sequence[Factors]) -> Tensor:
    """Return the energy of each row of the weight (out,) in some output gradients, or in all where these are 0."""
    most = max(part.outputs.shape[2] for part in parts)
    for step in (max(1, most // FEW), 1):
        found = reduce(torch.add, [part.outputs[:, :, ::step].square().sum(dim=2).flatten() for part in parts])
        if found.any():
            break
    return found


def _whole_shape(pieces: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the shape of pieces joined along the first axis."""
    return (sum(len(piece) for piece in pieces), *pieces[0].shape[1:])


def _scale(taken: Tensor, made: Tensor, dtype: torch.dtype) -> float | None:
    """Return the factor from the gradient of the factors to the one that the optimiser took, None without one."""
    size, whole = float(made.square().sum()), float(torch.linalg.vector_norm(taken))
    if not size:
        return None if whole else 1.0
    scale = float((taken * made).sum()) / size
    if not float(torch.linalg.vector_norm(taken - scale * made)) <= TOLERANCE[dtype] * whole:
        return None
    return 1.0 if abs(scale - 1) < NEAR_ONE[dtype] else scale
