"""One update of an optimiser as a differentiable function of weights, state and gradient.

The formulas are those of `torch.optim` and of `tasks.training.sam`, which change their weights in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Gradient = Callable[[Tensors], Mapping[str, Tensor | None]]  # weights by name -> gradients; None: not in the loss
Part = tuple[str, str]  # part of the state, name of the weight or buffer
Settings = Mapping[str, Any]  # Any: numbers, pairs and switches of torch.optim

WEIGHT, BUFFER = "weight", "buffer"
SMALL = 1e-12  # as in tasks.training.sam
PLAIN: dict[str, Any] = {"lr": 0.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
MOMENTS: dict[str, Any] = {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "maximize": False}
DEFAULTS: dict[str, dict[str, Any]] = {  # settings by kind, with torch's defaults
    "sgd": {**PLAIN, "dampening": 0.0, "maximize": False},
    "adam": {**MOMENTS, "weight_decay": 0.0, "decoupled_weight_decay": False},
    "adamw": {**MOMENTS, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "sam": {**PLAIN, "dampening": 0.0, "maximize": False, "rho": 0.05},
}
KERNELS = ("foreach", "fused", "capturable", "differentiable")  # settings that do not change the result


@dataclass(frozen=True)
class State:
    """The state of a training between two steps.

    Attributes
    ----------
    tensors : by part and name; parts are "weight", "buffer" (running statistics), and torch's names of what the
        optimiser keeps of each weight
    counts : number of updates of each weight so far; weights without one are left out
    """

    tensors: Mapping[Part, Tensor]
    counts: Mapping[str, int] = field(default_factory=dict)

    def part(self, wanted: str) -> Tensors:
        """Return the tensors of a part by name."""
        return {name: tensor for (part, name), tensor in self.tensors.items() if part == wanted}


def check_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of an optimiser with `kind` and torch's defaults.

    Raises
    ------
    ValueError : an unknown kind, or a setting that the kind does not have
    """
    kind = settings.get("kind")
    if kind not in DEFAULTS:
        raise ValueError(f"optimizer: kind: expected one of {', '.join(DEFAULTS)}, found {kind!r}")
    known = DEFAULTS[str(kind)]
    for name in settings:
        if name not in known and name not in ("kind", *KERNELS):
            raise ValueError(f"optimizer: expected settings of {kind} ({', '.join(known)}), found {name!r}")
    found = {**known, **{name: value for name, value in settings.items() if name not in KERNELS}}
    if found.get("nesterov") and not (found["momentum"] > 0 and not found["dampening"]):
        raise ValueError(
            "optimizer: nesterov: expected a momentum above 0 and no dampening, found "
            f"{found['momentum']} and {found['dampening']}"
        )
    return found


def advance(state: State, gradient: Gradient, rules: Mapping[str, Settings]) -> State:
    """Return the state after one update; buffers stay as they are.

    Parameters
    ----------
    gradient : gradient of the loss by the weights; parameters without one stay as they are, as in torch
    rules : settings of each parameter, from `check_settings`, with the step's `lr`
    """
    weights = state.part(WEIGHT)
    found = gradient(weights)
    if any(rules[name]["kind"] == "sam" for name in found):
        found = gradient(_ascended(weights, found, rules))
    tensors, counts = dict(state.tensors), dict(state.counts)
    for name, slope in found.items():
        if slope is None:
            continue
        kept = {part: value for (part, owner), value in state.tensors.items() if owner == name}
        count = state.counts.get(name, 0)
        update = _descend if rules[name]["kind"] in ("sgd", "sam") else _descend_by_moments
        after = update(kept, slope, count, rules[name])
        tensors |= {(part, name): value for part, value in after.items()}
        counts[name] = count + 1
    return State(tensors, counts)


def _descend(kept: Tensors, slope: Tensor, count: int, rule: Settings) -> Tensors:
    """Return weight and velocity after an update of SGD."""
    weight = kept[WEIGHT]
    slope = _decayed(weight, slope, rule)
    if not rule["momentum"]:
        return {WEIGHT: weight - rule["lr"] * slope}
    velocity = slope
    if count:
        velocity = rule["momentum"] * kept["momentum_buffer"] + (1 - rule["dampening"]) * slope
    step = slope + rule["momentum"] * velocity if rule["nesterov"] else velocity
    return {WEIGHT: weight - rule["lr"] * step, "momentum_buffer": velocity}


def _descend_by_moments(kept: Tensors, slope: Tensor, count: int, rule: Settings) -> Tensors:
    """Return weight and moments after an update of Adam or AdamW."""
    (first, second), lr, weight = rule["betas"], rule["lr"], kept[WEIGHT]
    if rule["decoupled_weight_decay"]:
        slope = -slope if rule["maximize"] else slope
        weight = weight * (1 - lr * rule["weight_decay"])
    else:
        slope = _decayed(weight, slope, rule)
    zero = torch.zeros_like(weight)
    mean = first * kept.get("exp_avg", zero) + (1 - first) * slope
    square = second * kept.get("exp_avg_sq", zero) + (1 - second) * slope * slope
    after = {"exp_avg": mean, "exp_avg_sq": square}
    if rule["amsgrad"]:
        square = after["max_exp_avg_sq"] = torch.maximum(kept.get("max_exp_avg_sq", zero), square)
    root = _root(square) / (1 - second ** (count + 1)) ** 0.5 + rule["eps"]
    some = root > 0  # without eps, a weight whose gradient is always 0 is NaN: a mask may then set it, not its slope
    step = torch.where(some, mean / torch.where(some, root, 1.0), torch.nan)
    return {WEIGHT: weight - lr / (1 - first ** (count + 1)) * step, **after}


def _decayed(weight: Tensor, slope: Tensor, rule: Settings) -> Tensor:
    """Return a gradient with its sign and with the decay of the weight."""
    slope = -slope if rule["maximize"] else slope
    return slope + rule["weight_decay"] * weight if rule["weight_decay"] else slope


def _ascended(weights: Tensors, found: Mapping[str, Tensor | None], rules: Mapping[str, Settings]) -> Tensors:
    """Return the weights of SAM's second gradient."""
    slopes = {name: slope for name, slope in found.items() if slope is not None}
    norm = _root(torch.stack([slope.square().sum() for slope in slopes.values()]).sum())
    moved = {name: weights[name] + slope * (rules[name]["rho"] / (norm + SMALL)) for name, slope in slopes.items()}
    return {**weights, **moved}


def _root(values: Tensor) -> Tensor:
    """Return square roots; the derivative at 0 is 0, since a gradient that is 0 throughout does not move."""
    positive = values > 0
    return torch.where(positive, values, 1.0).sqrt() * positive
