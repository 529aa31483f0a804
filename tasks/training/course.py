"""A training as a differentiable function of its state and of the weights of its examples.

Values come from the trainer's own steps, bit for bit. Derivatives come from the trainer's own closure, with other
tensors in the place of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.tracing.measures import watched_unit
from tasks.tracing.optimizer_rules import BUFFER, DEFAULTS, WEIGHT, Part, Settings, State, advance, check_settings
from tasks.training.batches import Batch
from tasks.training.clipping import clip_factor
from tasks.training.loop import Gradient, Trainer, frozen_statistics
from tasks.training.norm_course import Moments, followed, held_ghosts, names_of, running_norms, watched, written_out
from tasks.training.recurrence import open_recurrence
from tasks.training.sam import Sam

KINDS = {torch.optim.SGD: "sgd", torch.optim.Adam: "adam", torch.optim.AdamW: "adamw", Sam: "sam"}
MODEL = "model."  # before the names of the network's tensors
SLOTS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")


class TrainerCourse:
    """The steps of a trainer, as `tasks.tracing.adjoint` asks for them.

    Parameters
    ----------
    trainer : makes the steps; its state changes
    twin : the same training in another dtype, whose closure is differentiated; None takes `trainer`
    dtype : of states and derivatives

    Raises
    ------
    ValueError : an optimiser without a differentiable form
    """

    def __init__(self, trainer: Trainer, twin: Trainer | None = None, dtype: torch.dtype = torch.float32) -> None:
        self._trainer, self._twin, self._dtype = trainer, trainer if twin is None else twin, dtype
        self._whole, self._live = _Whole(self._twin), dict(_Whole(trainer).named_parameters())
        kind = KINDS.get(type(trainer.optimizer))
        if kind is None:
            known = ", ".join(DEFAULTS)
            found = type(trainer.optimizer).__name__
            raise ValueError(f"optimizer: expected one of {known}, found {found}, which cannot be differentiated")
        names = {id(parameter): name for name, parameter in self._live.items()}
        self._groups: dict[str, tuple[dict[str, Any], float]] = {}  # Any: settings of torch.optim
        for group in trainer.optimizer.param_groups:
            given = {key: value for key, value in group.items() if key in DEFAULTS[kind]}
            settings = check_settings({**given, "kind": kind})
            rate = float(group.get("initial_lr", group["lr"]))
            self._groups |= {names[id(p)]: (settings, rate) for p in group["params"] if p.requires_grad}
        self._norms, self._twin_norms = (
            {f"{MODEL}{name}": norm for name, norm in running_norms(one.model).items()} for one in (trainer, self._twin)
        )
        self._epoch: tuple[int, list[Batch]] = (-1, [])

    def state(self) -> State:
        """Return a copy of the trainer's present state."""
        tensors: dict[Part, Tensor] = {}
        counts: dict[str, int] = {}
        for name in self._groups:
            parameter = self._live[name]
            tensors[WEIGHT, name] = self._copied(parameter)
            kept = self._trainer.optimizer.state.get(parameter, {})
            for slot in SLOTS:
                if isinstance(kept.get(slot), Tensor):
                    tensors[slot, name] = self._copied(kept[slot])
                    counts[name] = 1
            if "step" in kept:
                counts[name] = int(kept["step"])
        for name, norm in self._norms.items():
            tensors[BUFFER, f"{name}.running_mean"] = self._copied(norm.running_mean)
            tensors[BUFFER, f"{name}.running_var"] = self._copied(norm.running_var)
            counts[f"{name}.num_batches_tracked"] = int(norm.num_batches_tracked or 0)
        return State(tensors, counts)

    def states(self, state: State, start: int, stop: int) -> Iterator[State]:
        """Yield the state after each of the steps `start:stop`, from the state before them."""
        if start < stop:
            self._load(state)
        for _ in self._trainer.steps(start, stop):
            yield self.state()

    def examples(self, step: int) -> int:
        """Return the number of examples of a step, without ghosts."""
        return len(self.batch(step).examples)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; those of its epoch are kept for the next call."""
        batches = self._trainer.samples.batches
        epoch, index = divmod(step, batches.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, batches.epoch(epoch))
        return self._epoch[1][index]

    def step(self, step: int, state: State, weights: Tensor) -> State:
        """Return the state after a step as a differentiable function of the state and of its examples' weights."""
        closure, moments = self._closure(step, weights), Moments()

        def gradient(parameters: dict[str, Tensor]) -> Mapping[str, Tensor | None]:
            return self._slopes(closure, parameters, {} if moments else moments)  # SAM's second pass does not count

        after = advance(state, gradient, self._rules(step))
        tensors = dict(after.tensors)
        for name, calls in moments.items():
            tensors |= followed(name, self._twin_norms[name], state, calls)
        for companion in closure.companions:
            prefix = f"companions.{self._twin.companions.index(companion)}."
            tensors |= _put(prefix, companion.normalised(_below(prefix, tensors)))
            tensors |= _put(MODEL, companion.masked(_below(MODEL, tensors)))
        return State(tensors, after.counts)

    def slopes(self, step: int, state: State, weights: Tensor) -> Mapping[Part, Tensor]:
        """Return the gradient of a step's loss by the trained weights, differentiable in the examples' weights."""
        found = self._slopes(self._closure(step, weights, clipped=False), state.part(WEIGHT), {})
        return {(WEIGHT, name): slope for name, slope in found.items() if slope is not None}

    def logits(self, state: State, inputs: Tensor) -> Tensor:
        """Return the network's logits (n, C) in evaluation mode as a differentiable function of the state."""
        model = self._twin.model.eval()
        tensors = {
            name.removeprefix(MODEL): tensor
            for (part, name), tensor in state.tensors.items()
            if part in (WEIGHT, BUFFER) and name.startswith(MODEL)
        }
        with written_out(self._twin_norms.values()), open_recurrence(model):
            found: Tensor = functional_call(model, tensors, (inputs.to(self._dtype, copy=True),))
        return found

    def activations(self, state: State, inputs: Tensor, layer: str, unit: int) -> Tensor:
        """Return a unit's activation (n,) in evaluation mode as a differentiable function of the state."""
        with watched_unit(self._twin.model, layer, unit) as found:
            self.logits(state, inputs)
        if len(found) != 1:
            raise ValueError(f"layer {layer!r}: expected one call in a forward pass, found {len(found)}; take another")
        return found[0]

    def query_gradients(
        self, state: State, inputs: Tensor, classes: Tensor, measure: Callable[[State, Tensor, Tensor], Tensor]
    ) -> dict[Part, Tensor]:
        """Return the gradient of each query's own measure (Q, *shape) by each trained weight, in evaluation mode.

        Parameters
        ----------
        classes : (Q, ...)
        measure : of a state, inputs (n, ...) and classes (n, ...); gives (n,)
        """

        def value(weights: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
            tensors = {(WEIGHT, name): tensor for name, tensor in weights.items()}
            fixed = {key: tensor for key, tensor in state.tensors.items() if key[0] == BUFFER}
            return measure(State({**fixed, **tensors}), one[None], label[None])[0]

        weights = {name: tensor.detach() for name, tensor in state.part(WEIGHT).items()}
        slopes = torch.func.grad(value)
        try:
            found = torch.func.vmap(slopes, (None, 0, 0))(weights, inputs, classes)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # some modules cannot be vectorised, such as recurrent layers
            each = [slopes(weights, one, label) for one, label in zip(inputs, classes, strict=True)]
            found = {name: torch.stack([one[name] for one in each]) for name in weights}
        return {(WEIGHT, name): slope for name, slope in found.items()}

    def remaining(self, gradients: Mapping[Part, Tensor]) -> dict[Part, Tensor]:
        """Return gradients (n, *shape) by weights, with 0 for pruned weights, which no update changes."""
        found = dict(gradients)
        for companion in self._twin.companions:
            found |= _put(MODEL, companion.masked(_below(MODEL, found)))
        return found

    def rate(self, step: int, name: str) -> float:
        """Return the learning rate of a weight in a step."""
        schedule, first = self._trainer.schedule, self._groups[name][1]
        return first if schedule is None else first * schedule(step)

    def check_rest(self, first: Mapping[str, Tensor]) -> None:
        """Raise ValueError where a tensor outside the state differs from `first`, an earlier result of `rest`."""
        for name, tensor in self.rest().items():
            if not torch.equal(tensor, first[name]):
                raise ValueError(
                    f"counterfactual: expected steps that change weights and batch norm's statistics, found a change "
                    f"of {name!r}; its influence cannot be differentiated"
                )

    def rest(self) -> dict[str, Tensor]:
        """Return copies of the network's tensors outside the state."""
        tracked = {name for norm in self._norms for name in names_of(norm)}
        found = {f"{MODEL}{name}": tensor for name, tensor in self._trainer.model.state_dict().items()}
        return {n: t.detach().clone() for n, t in found.items() if n not in tracked and n not in self._groups}

    def _closure(self, step: int, weights: Tensor, *, clipped: bool = True) -> Gradient:
        """Return the closure of a step of the twin, with weights on its examples."""
        self._twin.model.train()
        epoch = step // self._trainer.samples.batches.per_epoch
        made = self._twin.gradient(step, epoch, self.batch(step))
        return replace(made, inputs=made.inputs.to(self._dtype), weights=weights, clip=made.clip if clipped else None)

    def _slopes(self, closure: Gradient, parameters: dict[str, Tensor], moments: Moments) -> dict[str, Tensor | None]:
        """Return the gradient at given parameters, clipped as the closure does; fill in the moments of batch norms."""
        model, run = self._twin.model, partial(functional_call, self._whole)
        with (
            torch.enable_grad(),
            open_recurrence(model),
            frozen_statistics(model),
            held_ghosts(model, partial(run, parameters, (closure,))),
        ):
            # The gradient is by copies, since held ghosts are a function of the parameters themselves.
            copies = {name: tensor.view_as(tensor) for name, tensor in parameters.items()}
            with watched(self._twin_norms, moments):
                loss = run(copies, (closure,))
            found = torch.autograd.grad(loss, list(copies.values()), create_graph=True, allow_unused=True)
        slopes: dict[str, Tensor | None] = dict(zip(parameters, found, strict=True))
        for companion in closure.companions:
            within = {n.removeprefix(MODEL): s for n, s in slopes.items() if s is not None and n.startswith(MODEL)}
            slopes |= {f"{MODEL}{name}": slope for name, slope in companion.masked(within).items()}
        if closure.clip is not None:
            clipped = [slope for name, slope in slopes.items() if slope is not None and name.startswith(MODEL)]
            factor = clip_factor(clipped, closure.clip)
            slopes |= {n: s * factor for n, s in slopes.items() if s is not None and n.startswith(MODEL)}
        return slopes

    def _rules(self, step: int) -> dict[str, Settings]:
        """Return the settings of each weight in a step."""
        return {name: {**settings, "lr": self.rate(step, name)} for name, (settings, _) in self._groups.items()}

    @torch.no_grad()
    def _load(self, state: State) -> None:
        """Set the trainer to a state."""
        for name in self._groups:
            parameter = self._live[name]
            parameter.copy_(state.tensors[WEIGHT, name])
            kept: dict[str, Any] = {  # Any: what torch.optim keeps
                slot: state.tensors[slot, name].to(parameter.dtype, copy=True)
                for slot in SLOTS
                if (slot, name) in state.tensors
            }
            if "exp_avg" in kept:
                kept["step"] = torch.tensor(float(state.counts[name]))
            self._trainer.optimizer.state.pop(parameter, None)
            if kept:
                self._trainer.optimizer.state[parameter] = kept
        for name, norm in self._norms.items():
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(state.tensors[BUFFER, f"{name}.running_mean"])
            norm.running_var.copy_(state.tensors[BUFFER, f"{name}.running_var"])
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(state.counts[f"{name}.num_batches_tracked"])

    def _copied(self, tensor: Tensor | None) -> Tensor:
        """Return a copy of a tensor in the dtype of the states."""
        assert tensor is not None
        return tensor.detach().to(self._dtype, copy=True)


class _Whole(nn.Module):
    """The network of a training and the modules of its companions, so that tensors can take the place of all."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.model = trainer.model
        self.companions = nn.ModuleList([companion.holder() for companion in trainer.companions])

    def forward(self, closure: Gradient) -> Tensor:
        """Return the loss of a step."""
        return closure.total()


def _below(prefix: str, tensors: Mapping[Part, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a state whose names have a prefix, by the rest of the name."""
    return {n.removeprefix(prefix): t for (part, n), t in tensors.items() if part == WEIGHT and n.startswith(prefix)}


def _put(prefix: str, tensors: Mapping[str, Tensor]) -> dict[Part, Tensor]:
    """Return weights as parts of a state, with a prefix before their names."""
    return {(WEIGHT, f"{prefix}{name}"): tensor for name, tensor in tensors.items()}
