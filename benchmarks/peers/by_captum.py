"""captum's scores: TracIn at checkpoints, its fast form at the last layer, and influence functions."""

import importlib
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.peers.digits import Subject, margin
from benchmarks.peers.scorers import Doubles, Method

TEN = 10
DAMPING = 1e-3


class NegativeMargin(nn.Module):
    """Minus the margin, summed: what an example that helps lowers."""

    reduction = "sum"

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return minus the sum of the margins."""
        return -margin(logits, classes).sum()


def tracin(subject: Subject, checkpoints: int | None, *, fast: bool = False) -> Any:  # Any: captum ships no types here
    """Return captum's scorer after epochs spread up to the last one, as layerlore's; None takes every epoch."""
    influence = importlib.import_module("captum.influence")
    count = subject.epochs if checkpoints is None else min(checkpoints, subject.epochs)
    names = [str(round((number + 1) / count * subject.epochs)) for number in range(count)]

    def load(model: nn.Module, name: str) -> float:
        model.load_state_dict(subject.checkpoints[int(name)])
        return subject.lr

    model, loss = subject.model(), nn.CrossEntropyLoss(reduction="sum")
    options: dict[str, Any] = {"loss_fn": loss, "batch_size": len(subject.images)}  # Any: mixed options
    if fast:
        return influence.TracInCPFast(model, model[2], subject.examples, names, load, **options)
    return influence.TracInCP(model, subject.examples, names, load, sample_wise_grads_per_batch=True, **options)


def naive(subject: Subject) -> Any:  # Any: captum ships no types here
    """Return captum's influence functions with the whole Hessian, for the margin."""
    influence = importlib.import_module("captum.influence")

    def load(model: nn.Module, _: str) -> float:
        model.load_state_dict(subject.checkpoints[-1])
        return 1.0

    return influence.NaiveInfluenceFunction(
        subject.model(),
        subject.examples,
        "last",
        load,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        test_loss_fn=NegativeMargin(),
        batch_size=len(subject.images),
        sample_wise_grads_per_batch=True,
        hessian_reg=DAMPING,
    )


def scored(make: Any, subject: Subject) -> Doubles:  # Any: captum ships no types here
    """Return the influence of each example on each query, positive for helpful ones."""
    found: Doubles = make(subject).influence((subject.queries, subject.classes)).double().numpy()
    return found


def of_itself(make: Any, subject: Subject) -> Doubles:  # Any: captum ships no types here
    """Return the influence of each example on itself."""
    found: Doubles = make(subject).self_influence().detach().double().numpy()
    return found


def _method(name: str, make: Any) -> Method:  # Any: captum ships no types here
    """Return a method with its self-influence."""
    return Method("captum", name, partial(scored, make), partial(of_itself, make))


CAPTUM = (
    _method("TracInCP, 10 checkpoints", partial(tracin, checkpoints=TEN)),
    _method("TracInCP, every epoch", partial(tracin, checkpoints=None)),
    _method("TracInCPFast, 10 checkpoints", partial(tracin, checkpoints=TEN, fast=True)),
    _method("TracInCPFast, every epoch", partial(tracin, checkpoints=None, fast=True)),
    _method("influence functions", naive),
)
