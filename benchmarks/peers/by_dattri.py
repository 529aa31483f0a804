"""dattri's scores: TRAK of one network and of ten, and influence functions with the whole Hessian."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.digits import State, Subject
from benchmarks.peers.scorers import Doubles, Method
from benchmarks.peers.truth import one_of, trained_again

ENSEMBLE, DIMENSIONS, DAMPING = 10, 512, 1e-3
SEED = 1000  # of the ensemble's trainings, which are not those of the truth
Pair = tuple[Tensor, Tensor]


def functions(subject: Subject) -> dict[str, Callable[[State, Pair], Tensor]]:
    """Return loss, margin and probability as functions of parameters and one example, or a batch."""
    model = subject.model()

    def logits(parameters: State, pair: Pair) -> Pair:
        image, label = pair
        found: Tensor = torch.func.functional_call(model, parameters, image.reshape(-1, image.shape[-1]))
        return found, label.reshape(-1)

    def loss(parameters: State, pair: Pair) -> Tensor:
        return nn.functional.cross_entropy(*logits(parameters, pair))

    def margin(parameters: State, pair: Pair) -> Tensor:
        values, label = logits(parameters, pair)
        own = torch.arange(values.shape[1]) == label[:, None]  # a one-hot code that vmap takes
        return (values * own).sum() - values.masked_fill(own, -torch.inf).logsumexp(1).sum()

    return {
        "loss": loss,
        "margin": margin,
        "negative": lambda parameters, pair: -margin(parameters, pair),
        "probability": lambda parameters, pair: torch.exp(-loss(parameters, pair)),
    }


def loaders(subject: Subject) -> tuple[Any, Any]:  # Any: data loaders of pairs
    """Return loaders of all examples and all queries."""
    loader = torch.utils.data.DataLoader
    return loader(subject.examples, len(subject.images)), loader(subject.asked, len(subject.queries))


def ensemble(subject: Subject) -> list[State]:
    """Train networks on all examples from seeds of their own."""
    everything = [np.arange(len(subject.images))] * ENSEMBLE
    networks = trained_again(subject, everything, SEED)
    return [one_of(networks, number) for number in range(ENSEMBLE)]


def trak(subject: Subject, *, many: bool) -> Doubles:
    """Return TRAK's scores; with `many`, ten networks are trained for it."""
    module, asked = importlib.import_module("dattri.algorithm.trak"), functions(subject)
    checkpoints = ensemble(subject) if many else [subject.checkpoints[-1]]
    task = importlib.import_module("dattri.task").AttributionTask(
        loss_func=asked["margin"], model=subject.model(), checkpoints=checkpoints
    )
    attributor = module.TRAKAttributor(
        task=task,
        correct_probability_func=asked["probability"],
        projector_kwargs={"proj_dim": min(DIMENSIONS, len(subject.images) // 2), "device": "cpu"},
    )
    train, queries = loaders(subject)
    attributor.cache(train)
    return transposed(attributor.attribute(queries))


def explicit(subject: Subject) -> Doubles:
    """Return influence functions with the whole Hessian, for the margin."""
    module, asked = importlib.import_module("dattri.algorithm.influence_function"), functions(subject)
    task = importlib.import_module("dattri.task").AttributionTask(
        loss_func=asked["loss"],
        model=subject.model(),
        checkpoints=subject.checkpoints[-1],
        target_func=asked["negative"],
    )
    attributor = module.IFAttributorExplicit(task=task, regularization=DAMPING)
    train, queries = loaders(subject)
    attributor.cache(train)
    return transposed(attributor.attribute(train, queries))


def transposed(scores: Tensor) -> Doubles:
    """Return scores (N, Q) as (Q, N)."""
    found: Doubles = scores.detach().T.double().numpy()
    return found


DATTRI = (
    Method("dattri", "TRAK, this network", partial(trak, many=False)),
    Method("dattri", "TRAK, 10 networks trained for it", partial(trak, many=True)),
    Method("dattri", "influence functions", explicit),
)
