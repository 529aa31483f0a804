"""The traced layers and units of a training: what of each is needed to project updates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.specs import StageSpec
from tasks.steps.tracing.layers import traced_names, unit_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.modules.rows import Inputs
    from tasks.recording.sources import UpdateSource
    from tasks.tracing import Contributions


@dataclass(frozen=True)
class Target:
    """A traced layer or unit.

    Attributes
    ----------
    name : of the layer, or LAYER:INDEX
    layer : name of the layer
    unit : index of the output feature or channel, None for the whole layer
    module : the operation
    weight, bias : final weights of the layer; the bias is None where it does not count
    anchor : weights that give z; those of other units are 0. None for a layer under its final weights
    output : whether the layer's output is the logits
    """

    name: str
    layer: str
    unit: int | None
    module: nn.Module
    weight: Tensor
    bias: Tensor | None
    anchor: Tensor | None
    output: bool

    def contributions(self, inputs: Inputs, updates: Tensor, biases: Tensor | None) -> Contributions:
        """Return the contributions of updates of the layer; `biases` are counted where the bias counts."""
        from tasks.tracing import contributions, unit_contributions

        changes = None if self.bias is None else biases
        given = self.module, self.weight, inputs, updates
        if self.unit is None:
            return contributions(*given, anchor=self.anchor, bias=self.bias, bias_updates=changes)
        return unit_contributions(*given, self.unit, anchor=self.anchor, bias=self.bias, bias_updates=changes)

    @property
    def n_weights(self) -> int:
        """Return the number of weights: a unit's are its row."""
        from tasks.tracing.patches import Operation

        outputs = Operation(self.module, tuple(self.weight.shape)).n_outputs
        return self.weight.numel() // (1 if self.unit is None else outputs)


def layer_targets(spec: StageSpec, source: UpdateSource, model: nn.Module, example: Tensor) -> list[Target]:
    """Return the traced layers and units of a stage on the model's device; `spec.place` has the settings."""
    from tasks.modules.naming import traced_module

    output, device = last_call(model, example), example.device
    found = []
    for name in traced_names(source, spec):
        layer, unit = unit_of(name)
        module = traced_module(model, layer)
        weight, displaced = as_float(source.final(layer), device), spec.place["anchor"] == "displacement"
        anchor = weight - as_float(source.initial(layer), device) if displaced else None
        if unit is not None:
            anchor = only_unit(module, weight if anchor is None else anchor, unit)
        bias = _bias_of_z(source, layer, device, displaced=displaced) if spec.place["bias"] else None
        found.append(Target(name, layer, unit, module, weight, bias, anchor, layer == output and unit is None))
    return found


def passing_layers(targets: Sequence[Target], inputs: Mapping[str, Inputs]) -> list[str]:
    """Return the layers of which only `project` is asked, and for which running products are cheaper."""
    from tasks.tracing.running import runs

    uses = Counter(target.layer for target in targets)
    passing = []
    for target in targets:
        plain = uses[target.layer] == 1 and target.unit is None and not target.output
        given = target.module, target.weight, inputs[target.layer]
        if plain and runs(*given, anchor=target.anchor, bias=target.bias):
            passing.append(target.layer)
    return passing


def last_call(model: nn.Module, example: Tensor) -> str | None:
    """Return the name of the layer with the network's output, with its call where it has several."""
    import torch

    from tasks.capture import find_output_layer
    from tasks.splitting import replay

    calls: list[str] = []
    output = find_output_layer(model, example)
    if output is None:
        return None
    with torch.inference_mode(), replay.watching(model, lambda name, *_: calls.append(name)):
        model(example.clone())
    count = calls.count(output)
    return output if count == 1 else f"{output}@{count - 1}"


def only_unit(module: nn.Module, weight: Tensor, unit: int) -> Tensor:
    """Return a weight in which the weights of all other units are 0."""
    import torch

    from tasks.tracing.patches import Operation

    kept, operation = torch.zeros_like(weight), Operation(module, tuple(weight.shape), unit=unit)
    operation.kind.of_unit(operation.use, kept).copy_(operation.kind.of_unit(operation.use, weight))
    return kept


def as_float(stored: Tensor, device: torch.device) -> Tensor:
    """Return float32 weights or updates on the device."""
    import torch

    return stored.to(device, torch.float32)


def _bias_of_z(source: UpdateSource, layer: str, device: torch.device, *, displaced: bool) -> Tensor | None:
    """Return the bias in z, the final bias or its displacement; None without a bias."""
    final, initial = source.final_bias(layer), source.initial_bias(layer)
    if final is None or initial is None:
        return None
    return as_float(final, device) - as_float(initial, device) if displaced else as_float(final, device)
