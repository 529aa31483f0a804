"""pyDVL's scores: influence functions with the whole Hessian and by EK-FAC, and KNN-Shapley values."""

import importlib
from functools import partial
from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from benchmarks.peers.digits import Subject
from benchmarks.peers.scorers import Doubles, Method
from tasks.tracing.evaluation.baselines import NEIGHBOURS

DAMPING = 1e-3


def influence(subject: Subject, *, ekfac: bool) -> Doubles:
    """Return influences on the loss of each query, positive for helpful examples."""
    module, model = importlib.import_module("pydvl.influence.torch"), subject.model()
    loader: Any = torch.utils.data.DataLoader(subject.examples, len(subject.images))  # Any: a loader of pairs
    made = (
        module.EkfacInfluence(model, update_diagonal=True, hessian_regularization=DAMPING)
        if ekfac
        else module.DirectInfluence(model, nn.functional.cross_entropy, regularization=DAMPING)
    )
    with torch.enable_grad():
        found = made.fit(loader).influences(subject.queries, subject.classes, subject.images, subject.labels)
    values: Doubles = found.detach().double().numpy()
    return values


def knn_shapley(subject: Subject) -> Doubles:
    """Return minus the Shapley value of each example for a classifier by nearest neighbours, over all queries."""
    module = importlib.import_module("pydvl.valuation")
    known, asked = (
        module.Dataset(images.numpy(), labels.numpy())
        for images, labels in ((subject.images, subject.labels), (subject.queries, subject.classes))
    )
    made = module.KNNShapleyValuation(KNeighborsClassifier(NEIGHBOURS), asked, progress=False)
    made.fit(known)
    values: Doubles = -made.result.values.astype(float)[made.result.indices.argsort()]
    return values


PYDVL = (
    Method("pyDVL", "influence functions", partial(influence, ekfac=False)),
    Method("pyDVL", "EK-FAC", partial(influence, ekfac=True)),
    Method("pyDVL", "KNN-Shapley", None, knn_shapley),
)
