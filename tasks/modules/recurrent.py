"""Recurrent layers as linear maps: the gates of each layer and direction are one map of [x_t, h_{t-1}, 1].

The hidden states before each step are computed step by step, as the module's own kernel does not show them. Steps
beyond the end of a shorter sequence are rows of 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tasks.modules.composed import GateMap, LinearMap, Piece, SliceMap

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}  # by mode; the last gate of a GRU is not a sum


class RecurrentMap(nn.Linear):
    """A map of a recurrent layer; reports name its class."""


class Recurrent:
    """`nn.LSTM`, `nn.GRU` and `nn.RNN`."""

    forward = ("forward",)

    def problem(self, module: nn.Module) -> str:
        """Return "": every such module is covered."""
        return ""

    def pieces(self, module: nn.Module) -> dict[str, Piece]:
        """Return input and hidden weights of each layer and direction, and what projects the hidden state."""
        assert isinstance(module, nn.RNNBase)
        found = {}
        for tail in _tails(module):
            for name in ("ih", "hh"):
                found[name + tail] = Piece(f"weight_{name}{tail}", f"bias_{name}{tail}" if module.bias else None)
            if module.proj_size:
                found[f"hr{tail}"] = Piece(f"weight_hr{tail}")
        return found

    def maps(self, module: nn.Module) -> dict[str, LinearMap]:
        """Return the gates of each layer and direction, and what projects the hidden state."""
        assert isinstance(module, nn.RNNBase)
        units, found = module.hidden_size, dict[str, LinearMap]()
        for layer in range(module.num_layers):
            for tail in _directions(module, layer):
                seen = int(getattr(module, f"weight_ih{tail}").shape[1])
                held = module.proj_size or units
                pieces, rows = (f"ih{tail}", f"hh{tail}"), GATES[module.mode] * units
                apart = units if module.mode == "GRU" else 0
                found[tail.lstrip("_")] = GateMap(pieces, rows, (seen, held), module.bias, apart)
                if module.proj_size:
                    found[f"hr{tail}"] = SliceMap(f"hr{tail}", (0, held), (0, units), None)
        return found

    def stand_in(self, size: tuple[int, int]) -> nn.Module:
        """Return a linear map; the bias is one of its columns."""
        return RecurrentMap(size[1], size[0], bias=False, device="meta")

    def inputs(self, module: nn.Module, given: tuple[object, ...], named: Mapping[str, object]) -> dict[str, Tensor]:
        """Return [x_t, h_{t-1}, 1] of all steps, (Q, L, in), by layer and direction."""
        assert isinstance(module, nn.RNNBase)
        taken = dict(zip(("input", "hx"), given, strict=False)) | dict(named)
        steps, present = _steps(module, taken.get("input"))
        starts = _starts(module, taken.get("hx"), steps)
        found: dict[str, Tensor] = {}
        for layer in range(module.num_layers):
            made = []
            for tail in _directions(module, layer):
                run = _run(module, tail, steps, present, next(starts))
                ones = [present[..., None].to(steps.dtype)] if module.bias else []
                rows = torch.cat([steps, run.before, *ones], dim=2) * present[..., None]
                found[tail.lstrip("_")] = rows.transpose(0, 1)
                if run.projected is not None:
                    found[f"hr{tail}"] = run.projected.transpose(0, 1)
                made.append(run.outputs)
            steps = torch.cat(made, dim=2)
        return found


@dataclass(frozen=True)
class _Run:
    """A direction of a layer, time first: its outputs, the states before each step, and what is projected to them."""

    outputs: Tensor
    before: Tensor
    projected: Tensor | None


def _tails(module: nn.RNNBase) -> list[str]:
    """Return what ends the names of parameters, by layer and direction."""
    return [tail for layer in range(module.num_layers) for tail in _directions(module, layer)]


def _directions(module: nn.RNNBase, layer: int) -> list[str]:
    """Return what ends the names of a layer's parameters, by direction."""
    return [f"_l{layer}", *([f"_l{layer}_reverse"] if module.bidirectional else [])]


def _steps(module: nn.RNNBase, given: object) -> tuple[Tensor, Tensor]:
    """Return the steps of the input (L, Q, n), time first, and which are there (L, Q)."""
    if isinstance(given, PackedSequence):
        steps, lengths = pad_packed_sequence(given)
        at = torch.arange(len(steps), device=steps.device)
        return steps, at[:, None] < lengths.to(steps.device)
    if not isinstance(given, Tensor) or given.ndim != 3:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(f"expected sequences with 3 axes or a packed sequence, found {shape}")
    steps = given.transpose(0, 1) if module.batch_first else given
    return steps, torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)


def _starts(module: nn.RNNBase, given: object, steps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return an iterator over hidden state and cell (Q, units) before the first step, by layer and direction."""
    sizes = module.proj_size or module.hidden_size, module.hidden_size
    both = given if isinstance(given, tuple) else (given, None)
    states = [
        one if isinstance(one, Tensor) else steps.new_zeros(len(_tails(module)), steps.shape[1], size)
        for one, size in zip(both, sizes, strict=True)
    ]
    return zip(*states, strict=True)


def _run(module: nn.RNNBase, tail: str, steps: Tensor, present: Tensor, start: tuple[Tensor, Tensor]) -> _Run:
    """Run a direction step by step; a step that is not there leaves the state as it was."""
    hidden, cell = start
    n = len(steps)
    before, outputs, projected = ([torch.zeros(0)] * n for _ in range(3))
    for t in reversed(range(n)) if tail.endswith("_reverse") else range(n):
        here, before[t] = present[t][:, None], hidden
        after, next_cell, inner = _cell(module, tail, steps[t], (hidden, cell))
        hidden, cell = torch.where(here, after, hidden), torch.where(here, next_cell, cell)
        outputs[t], projected[t] = after * here, inner * here
    whole = torch.stack(projected) if module.proj_size else None
    return _Run(torch.stack(outputs), torch.stack(before), whole)


def _cell(module: nn.RNNBase, tail: str, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the next hidden state and cell, and the hidden state before its projection."""
    hidden, cell = state
    seen = nn.functional.linear(x, getattr(module, f"weight_ih{tail}"), getattr(module, f"bias_ih{tail}", None))
    held = nn.functional.linear(hidden, getattr(module, f"weight_hh{tail}"), getattr(module, f"bias_hh{tail}", None))
    if module.mode == "LSTM":
        i, f, g, o = (seen + held).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        inner = o.sigmoid() * cell.tanh()
        return (inner @ getattr(module, f"weight_hr{tail}").T if module.proj_size else inner), cell, inner
    if module.mode == "GRU":
        (r, z, n), (r_held, z_held, n_held) = seen.chunk(3, dim=1), held.chunk(3, dim=1)
        new = (n + (r + r_held).sigmoid() * n_held).tanh()
        keep = (z + z_held).sigmoid()
        after = (1 - keep) * new + keep * hidden
    else:
        after = (seen + held).tanh() if module.mode == "RNN_TANH" else (seen + held).relu()
    return after, cell, after
