"""kronfluence's scores: influence functions by EK-FAC."""

import importlib
import tempfile
import warnings
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchmarks.peers.digits import Subject, margin
from benchmarks.peers.scorers import Doubles, Method


def task() -> Any:  # Any: the class is made from a library that may not be installed
    """Return the loss of the training and minus the margin as the measurement."""
    base = importlib.import_module("kronfluence.task").Task

    class Margins(base):  # type: ignore[misc,valid-type]  # a base class that is known at run time
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:  # Any: theirs
            images, labels = batch
            logits = model(images)
            if sample:
                labels = logits.detach().softmax(1).multinomial(1).flatten()
            return nn.functional.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:  # Any: theirs
            images, classes = batch
            return -margin(model(images), classes).sum()

    return Margins()


def fitted(subject: Subject, folder: str) -> Any:  # Any: kronfluence's analyzer
    """Return an analyzer with the factors of EK-FAC."""
    module, asked = importlib.import_module("kronfluence.analyzer"), task()
    model = module.prepare_model(subject.model(), asked)
    analyzer = module.Analyzer("digits", model, asked, cpu=True, output_dir=folder, disable_tqdm=True)
    analyzer.fit_all_factors("ekfac", subject.examples, per_device_batch_size=len(subject.images))
    return analyzer


def ekfac(subject: Subject) -> Doubles:
    """Return the scores, positive for examples that raise the margin."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer = fitted(subject, folder)
        analyzer.compute_pairwise_scores(
            "pairs",
            "ekfac",
            query_dataset=subject.asked,
            train_dataset=subject.examples,
            per_device_query_batch_size=len(subject.queries),
            per_device_train_batch_size=len(subject.images),
        )
        found: Doubles = analyzer.load_pairwise_scores("pairs")["all_modules"].double().numpy().astype(np.float64)
        return found


def of_itself(subject: Subject) -> Doubles:
    """Return the self-influence of each example."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer = fitted(subject, folder)
        count = len(subject.images)
        analyzer.compute_self_scores("self", "ekfac", train_dataset=subject.examples, per_device_train_batch_size=count)
        found: Doubles = analyzer.load_self_scores("self")["all_modules"].double().numpy()
        return found


KRONFLUENCE = (Method("kronfluence", "EK-FAC", ekfac, of_itself),)
