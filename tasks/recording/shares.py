"""Each member's part of an update: gradients by row of a batch, and their whole effect under SGD."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tasks.modules import kind_of
from tasks.recording.programs import Row
from tasks.tracing import gammas

TOLERANCE = 1e-3  # of the gradient's norm: rounding of float32, far below a missing part
AT_ONCE = 64 * 2**20  # bytes of gradients by member that are computed together

Call = tuple[Tensor, Tensor]  # inputs and output gradients of a call of the layer, (rows, ...)


@dataclass(frozen=True)
class StepShares:
    """The gradients of a step's members at a layer, in factors.

    Parameters
    ----------
    calls : the layer's calls; either each has all members, or together they have each member once
    members : number of examples and ghosts
    effect : sum over all later steps of what a gradient of 1 does to the weights
    problem : why the update cannot be split, "" if it can
    """

    calls: tuple[Call, ...]
    members: int
    effect: float
    problem: str = ""

    @property
    def nbytes(self) -> int:
        """The bytes of the factors."""
        return sum(tensor.nbytes for call in self.calls for tensor in call)


class Shares:
    """Watches the layers of a training that is repeated, one update at a time.

    Parameters
    ----------
    modules : recorded layers by name
    chosen : names of the layers to split
    optimizer : torch's SGD, or no update can be split
    rates : learning rates of all steps of the training, a number per group
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        chosen: Sequence[str],
        optimizer: torch.optim.Optimizer,
        rates: Sequence[tuple[float, ...]],
    ) -> None:
        self._modules = {name: modules[name] for name in chosen}
        self._optimizer, self._rates = optimizer, rates
        self._calls: dict[str, list[Call]] = {}
        self._factors: dict[str, float | None] = {}
        self._measuring = False  # then the calls of the layers are not the training's

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Surround one update; the hooks are removed afterwards."""
        self._calls, self._factors = {name: [] for name in self._modules}, {}
        with ExitStack() as hooks:
            for name, module in self._modules.items():
                handle = module.register_forward_hook(lambda m, given, made, name=name: self._see(name, m, given, made))
                hooks.callback(handle.remove)
            hooks.callback(self._optimizer.register_step_post_hook(lambda *_: self._measure()).remove)
            yield

    def take(self, row: Row) -> dict[str, StepShares]:
        """Return the factors of the update that was watched, by layer."""
        members, found = len(row.examples) + len(row.ghosts), {}
        for name, module in self._modules.items():
            calls, factor = tuple(self._calls[name]), self._factors.get(name, 0.0)
            problem = _problem(self._optimizer, name, calls, members, factor)
            effect = 0.0 if problem or factor is None else -factor * self._effect(module, row.step)
            found[name] = StepShares(() if problem else calls, members, effect, problem)
        self._calls, self._factors = {}, {}
        return found

    def _see(self, name: str, module: nn.Module, given: tuple[object, ...], made: Tensor) -> None:
        """Keep a call's inputs, and its output gradients once they are known."""
        kind = kind_of(module)
        assert kind is not None, name
        if made.requires_grad and not self._measuring:
            inputs = kind.inputs(given).detach().clone()
            made.register_hook(  # type: ignore[no-untyped-call]  # torch's stub
                lambda gradient: self._calls[name].append((inputs, gradient.detach().clone()))
            )

    def _measure(self) -> None:
        """Compare each layer's gradient, as the optimiser saw it, with the sum of its members' parts."""
        self._measuring = True
        for name, module in self._modules.items():
            gradient, calls = _weight(module).grad, self._calls[name]
            if gradient is None or not calls:
                self._factors[name] = 0.0 if gradient is None and not calls else None
                continue
            with torch.enable_grad():
                parts = [_weight_gradient(module, inputs, outputs) for inputs, outputs in calls]
            total, wanted = torch.stack(parts).sum(0).double(), gradient.detach().double()
            square = float((total * total).sum())
            factor = float((total * wanted).sum()) / square if square else 0.0
            fits = float((wanted - factor * total).norm()) <= TOLERANCE * float(wanted.norm())
            self._factors[name] = factor if fits else None
        self._measuring = False

    def _effect(self, module: nn.Module, step: int) -> float:
        """Return the sum of the changes of a weight, from `step` on, that a gradient of -1 in this step makes."""
        groups = self._optimizer.param_groups
        index = next(k for k, g in enumerate(groups) if any(p is _weight(module) for p in g["params"]))
        momentum, nesterov = float(groups[index]["momentum"]), bool(groups[index]["nesterov"])
        first = (1 - float(groups[index]["dampening"])) if step else 1.0  # the first velocity is the whole gradient
        rates = [lrs[index] for lrs in self._rates[step:]] if momentum else [self._rates[step][index]]
        if not momentum:
            return rates[0]
        total, share = (rates[0] if nesterov else 0.0), first * (momentum if nesterov else 1.0)
        for rate in rates:
            total, share = total + rate * share, share * momentum
        return total


def share_columns(
    shares: StepShares, module: nn.Module, weight: Tensor, inputs: Tensor, anchor: Tensor | None
) -> Tensor:
    """Return the contributions of a step's members to queries, (Q, members).

    Parameters
    ----------
    module, weight, inputs, anchor : as in `tasks.tracing.contributions`

    Raises
    ------
    NotImplementedError : the update cannot be split
    """
    if shares.problem:
        raise NotImplementedError(shares.problem)
    columns = [_call_columns(call, module, weight, inputs, anchor) for call in shares.calls]
    if not columns:
        return inputs.new_zeros((len(inputs), shares.members))
    whole = columns[0].shape[1] == shares.members
    return shares.effect * (torch.stack(columns).sum(0) if whole else torch.cat(columns, dim=1))


def _problem(
    optimizer: torch.optim.Optimizer, name: str, calls: Sequence[Call], members: int, factor: float | None
) -> str:
    """Return why an update cannot be split by its members, "" if it can."""
    if type(optimizer) is not torch.optim.SGD or any(group["maximize"] for group in optimizer.param_groups):
        return f"layer {name!r}: expected an optimiser that is linear in the gradient (torch's SGD), found another"
    if factor is None:
        return (
            f"layer {name!r}: expected a gradient that is the sum of its members' parts, found another: the weight is "
            "tied, or the loss has a term of the weights"
        )
    rows = [len(inputs) for inputs, _ in calls]
    if any(count != members for count in rows) and sum(rows) != members:
        return f"layer {name!r}: expected a row for each of {members} members, found {rows}"
    return ""


def _weight(module: nn.Module) -> Tensor:
    """Return the weight of a covered module."""
    found: Tensor = module.weight  # type: ignore[assignment]  # torch's stub
    return found


def _weight_gradient(module: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of <outputs, layer(inputs)> by the weight."""
    weight = _weight(module).detach().requires_grad_(True)
    with torch.enable_grad():
        made = functional_call(module, {"weight": weight}, (inputs,))
        (found,) = torch.autograd.grad((made * outputs).sum(), weight)
    return found


def _call_columns(call: Call, module: nn.Module, weight: Tensor, inputs: Tensor, anchor: Tensor | None) -> Tensor:
    """Return <z, G_b f> (Q, rows) for the gradient G_b of each row of a call."""
    rows, outputs = call[0].to(inputs), call[1].to(inputs)
    if isinstance(module, nn.Linear) and rows.ndim == inputs.ndim == 2:
        z = inputs @ (weight if anchor is None else anchor).T
        return (z @ outputs.T) * (inputs @ rows.T)
    blank = {name: weight.new_zeros(value.shape) for name, value in module.named_parameters(recurse=False)}

    def product(value: Tensor, row: Tensor, output: Tensor) -> Tensor:
        made: Tensor = functional_call(module, {**blank, "weight": value}, (row[None],))
        return (made * output[None]).sum()

    size = max(1, AT_ONCE // max(1, weight.nbytes))
    found = []
    for low in range(0, len(rows), size):
        part = slice(low, low + size)
        gradients = vmap(grad(product), in_dims=(None, 0, 0))(blank["weight"], rows[part], outputs[part])
        found.append(gammas(module, weight, inputs, gradients, anchor=anchor))
    return torch.cat(found, dim=1)
