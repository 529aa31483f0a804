"""Sharpness-aware minimisation (Foret, Kleiner, Mobahi, Neyshabur 2021, Algorithm 1) over SGD."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Closure = Callable[[], Tensor]
SMALL = 1e-12  # prevents a division by zero for a zero gradient


class Sam(torch.optim.Optimizer):
    """SGD with the gradient at the highest loss nearby: one update per step, from two gradients.

    `step(closure)` calls `closure`, which computes loss and gradient, at the weights w and at w + rho g / ||g||. The
    norm is over all parameters. The second gradient updates w as in `torch.optim.SGD`.

    Parameters
    ----------
    params : parameters or groups of them
    lr, momentum, nesterov, weight_decay : as in `torch.optim.SGD`
    rho : length of the ascent, above 0
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        rho: float = 0.05,
    ) -> None:
        if not rho > 0:
            raise ValueError(f"rho: expected a length above 0, found {rho}")
        settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "rho": rho}
        super().__init__(params, {"lr": lr, **settings})

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]  # the stub's float is a Tensor
        """Make one update and return the loss before it.

        Raises
        ------
        ValueError : without a closure
        """
        if closure is None:
            raise ValueError("closure: expected a function that computes loss and gradient, found None; SAM needs one")
        with torch.enable_grad():
            loss = closure()
        kept = self._ascend()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for parameter, value in kept:  # copied back, since w + e - e is rounded
                parameter.copy_(value)
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._descend(parameter, group)
        return loss

    @torch.no_grad()
    def _ascend(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Move the parameters up the gradient by rho; return their values before."""
        found = [(p, g["rho"]) for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p, _ in found]))
        kept = [(parameter, parameter.detach().clone()) for parameter, _ in found]
        for parameter, rho in found:
            assert parameter.grad is not None
            parameter.add_(parameter.grad * (rho / (norm + SMALL)))
        return kept

    def _descend(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:  # Any: torch's groups
        """Update one parameter as SGD does."""
        assert parameter.grad is not None
        gradient = parameter.grad
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if group["momentum"]:
            state = self.state[parameter]
            if "momentum_buffer" in state:
                state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
            else:
                state["momentum_buffer"] = gradient.detach().clone()
            velocity = state["momentum_buffer"]
            gradient = gradient.add(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
        parameter.add_(gradient, alpha=-group["lr"])
