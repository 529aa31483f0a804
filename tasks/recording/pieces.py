"""The gradients of attention and recurrent layers by member: each sample goes through the module again, alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tasks.modules.alone import Arguments, alone, arguments_of, count_samples, output_parts, outputs_of
from tasks.modules.composed import PieceModule

Gradients = tuple[Tensor, Tensor | None]  # of weight and bias by member, (members, *shape)
WIDE = (torch.float32, torch.float64)


class OwnerCall:
    """A call of a module in a step: its arguments, its output, and the gradients of what it gives.

    Parameters
    ----------
    module : of the call
    given, named, output : of the call
    """

    def __init__(self, module: nn.Module, given: Sequence[object], named: Mapping[str, object], output: object) -> None:
        self.arguments: Arguments = arguments_of(module, given, named)
        self.output, made = output, outputs_of(output)
        self.gradients: list[Tensor | None] = [None] * len(made)
        self.samples = count_samples(module, self.arguments)
        for place, one in enumerate(made):
            one.register_hook(lambda gradient, place=place: self._saw(place, gradient))  # type: ignore[no-untyped-call]  # torch's stub

    @property
    def reached(self) -> bool:
        """Whether a backward pass went through the call."""
        return any(gradient is not None for gradient in self.gradients)

    def _saw(self, place: int, gradient: Tensor) -> None:
        """Add the gradient of a backward pass."""
        seen, kept = self.gradients[place], gradient.detach().clone()
        self.gradients[place] = kept if seen is None else seen + kept


@dataclass
class Owner:
    """A module with several maps, its recorded pieces by name, and what a step showed of it."""

    module: nn.Module
    pieces: dict[str, dict[str, str]]  # names of the parameters in the module, by part: weight and bias
    calls: list[OwnerCall]
    parts: list[dict[str, Tensor]]  # gradients by sample: summed over calls with all members, or of each call
    before: list[Tensor] = field(default_factory=list)  # all parameters before the update
    problem: str = ""

    def add(self, parts: dict[str, Tensor], *, whole: bool) -> None:
        """Add the gradients of a call; those of calls with all members are summed, so that memory is that of one."""
        if not whole or not self.parts:
            self.parts.append(parts)
            return
        for path, one in parts.items():
            self.parts[0][path] += one


class OwnerWatch:
    """Watches the modules of pieces while a training is repeated.

    Parameters
    ----------
    pieces : recorded pieces by name
    """

    def __init__(self, pieces: Mapping[str, PieceModule]) -> None:
        self._owners: dict[int, Owner] = {}
        self._of: dict[str, Owner] = {}
        self._members = 0
        for name, piece in pieces.items():
            owner = self._owners.setdefault(id(piece.owner), Owner(piece.owner, {}, [], []))
            owner.pieces[name] = piece.piece.names
            self._of[name] = owner

    def begin(self, hooks: ExitStack, busy: Callable[[], bool], members: int) -> None:
        """Watch the calls of a step of `members` until `hooks` close; calls while `busy` are not the training's."""
        self._members = members
        for owner in self._owners.values():
            owner.calls, owner.parts, owner.problem = [], [], ""

            def see(
                module: nn.Module,
                given: tuple[object, ...],
                named: dict[str, object],
                made: object,
                owner: Owner = owner,
            ) -> None:
                if not busy() and outputs_of(made):
                    owner.calls.append(OwnerCall(module, given, named, made))

            hooks.callback(owner.module.register_forward_hook(see, with_kwargs=True).remove)

    def keep(self) -> None:
        """Copy the weights before the update; the loss may be computed within the optimiser's step."""
        for owner in self._owners.values():
            owner.before = [one.detach().clone() for one in owner.module.parameters()]

    def measure(self) -> None:
        """Compute the gradients by sample after an update, with the weights before it."""
        for owner in self._owners.values():
            calls = [call for call in owner.calls if call.reached]
            names = {path for piece in owner.pieces.values() for path in piece.values()}
            wanted = {n: one for n, one in owner.module.named_parameters() if n in names and one.requires_grad}
            owner.problem = _odd(owner.module, wanted, calls) or _counted(calls, self._members) if calls else ""
            split = calls if wanted and not owner.problem else []  # a frozen module does not have gradients
            whole = all(call.samples == self._members for call in calls)
            with _weights(owner.module, owner.before):
                for call in split:
                    owner.add(_by_sample(owner.module, wanted, call), whole=whole)
            owner.calls = []

    def totals(self, name: str) -> dict[str, Tensor]:
        """Return the sums of the gradients of a piece's parameters over all samples, by part; none without a call."""
        owner = self._of[name]
        found = {
            part: [one[path].sum(dim=0) for one in owner.parts if path in one]
            for part, path in owner.pieces[name].items()
        }
        return {part: torch.stack(rows).sum(dim=0) for part, rows in found.items() if rows}

    def take(self, name: str) -> tuple[str, Gradients | None]:
        """Return why a piece's update cannot be split, "" if it can, and the gradients of its parameters by member."""
        owner = self._of[name]
        if owner.problem:
            return f"layer {name!r}: {owner.problem}", None
        joined: dict[str, Tensor] = {}
        for part, path in owner.pieces[name].items():
            rows = [one[path] for one in owner.parts if path in one]
            if rows:
                joined[part] = rows[0] if len(rows) == 1 else torch.cat(rows)
        return "", (joined["weight"], joined.get("bias")) if "weight" in joined else None


def drops(module: nn.Module) -> bool:
    """Return whether a module drops values at random in training, so that no call of it can be made again."""
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    return float(getattr(module, "dropout", 0.0)) > 0


@contextmanager
def _weights(module: nn.Module, values: Sequence[Tensor]) -> Iterator[None]:
    """Give a module other weights in the block, and its own ones after it, bit for bit."""
    own = [one.detach().clone() for one in module.parameters()]
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), own, strict=True):
                parameter.copy_(value)


def _odd(module: nn.Module, wanted: Mapping[str, Tensor], calls: Sequence[OwnerCall]) -> str:
    """Return why calls of a module cannot be split by their samples, "" if they can."""
    if drops(module):
        return "expected a module without dropout, found one whose calls cannot be made again"
    if not all(call.samples for call in calls):
        return "expected calls with an axis of samples, found one without it"
    dtypes = {one.dtype for one in wanted.values()} | {
        g.dtype for call in calls for g in call.gradients if g is not None
    }
    if not dtypes <= set(WIDE) or len(dtypes) > 1:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"expected float32 or float64 in weights and gradients, found {found}"
    return ""


def _counted(calls: Sequence[OwnerCall], members: int) -> str:
    """Return why samples of calls are not the members of a step, "" if each call, or all together, have each once."""
    counts = [call.samples for call in calls]
    if all(count == members for count in counts) or sum(counts) == members:
        return ""
    return f"expected a sample for each of {members} members, found {counts}"


def _by_sample(module: nn.Module, wanted: Mapping[str, Tensor], call: OwnerCall) -> dict[str, Tensor]:
    """Return the gradients (n, *shape) of parameters by each sample of a call."""
    found = {name: one.detach().new_zeros(call.samples, *one.shape) for name, one in wanted.items()}
    parts = output_parts(module, call.output, call.gradients, call.samples)
    for index, (arguments, outputs) in enumerate(zip(alone(module, call.arguments, call.samples), parts, strict=True)):
        with torch.enable_grad():
            made = outputs_of(module(**arguments))
            # The attention's weights are not made again: where they have a gradient, the sum of the parts shows it.
            products = [(one * given).sum() for one, given in zip(made, outputs, strict=False) if given is not None]
            gradients = torch.autograd.grad(torch.stack(products).sum(), list(wanted.values()), allow_unused=True)
        for name, gradient in zip(wanted, gradients, strict=True):
            if gradient is not None:
                found[name][index] = gradient
    return found


def weight_of(module: nn.Module) -> Tensor:
    """Return the weight of a covered module, or of a piece of one."""
    if isinstance(module, PieceModule):
        return parts_of(module)["weight"]
    found: Tensor = module.weight  # type: ignore[assignment]  # torch's stub
    return found


def parts_of(piece: PieceModule) -> dict[str, Tensor]:
    """Return weight and bias of a piece."""
    return {part: getattr(module, attribute) for part, (_, module, attribute) in piece.places().items()}
