"""The scores of a comparison: those of the whole network, and baselines that know nothing of the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.graphs import summary_of, unpack_graph
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.common.networks import load_network
from tasks.steps.tracing.counterfactual import read_derivatives
from tasks.steps.tracing.measured import measured_unit
from tasks.steps.tracing.queries import query_inputs
from tasks.steps.tracing.targets import last_call
from tasks.steps.tracing.tracin import read_self_influence, read_tracin

if TYPE_CHECKING:
    import torch

BATCH = 256  # number of examples in one forward pass
RANDOM = 20  # seed of the random score, after the training's seed
COUNTERFACTUAL_SCORE, TRACIN_SCORE = "counterfactual", "tracin"
SAME, PIXELS, FEATURES, SHAPLEY, CHANCE = (
    *("same class", "nearest in pixels", "nearest in features", "KNN-Shapley in pixels", "random"),
)
BASELINES = (SAME, PIXELS, FEATURES, SHAPLEY, CHANCE)
NOT_IMAGES = ("graph-npz", "torch-geometric", "sequence-npz", "texts")  # sources of data without pixels
COLUMNS = 1024  # at most, of the counts of tokens
IN_INPUTS = {PIXELS: "nearest in inputs", SHAPLEY: "KNN-Shapley in inputs"}  # names of baselines there

Doubles = NDArray[np.float64]
Scored = tuple[Doubles, Doubles | None]  # (Q, N) larger for helpful examples; (N,) larger for probably wrong labels


def scores_of(spec: StageSpec) -> tuple[str, ...]:
    """Return the scores of a comparison, one per partition; without pixels baselines are named after the inputs."""
    names = BASELINES if not parameters_of_inputs(spec.inputs["network"]) else [IN_INPUTS.get(n, n) for n in BASELINES]
    return (*(name for name in (COUNTERFACTUAL_SCORE, TRACIN_SCORE) if name in spec.inputs), *names)


def parameters_of_inputs(training: StageSpec) -> Document:
    """Return what a spec says of the inputs of a training that has no images: that they are compared by content."""
    return {"inputs": "content"} if data_of(training.inputs["data"]).source in NOT_IMAGES else {}


@dataclass(frozen=True)
class Compared:
    """What the scores of a comparison are made of."""

    store: Store
    spec: StageSpec
    device: torch.device

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Return the training examples by position."""
        training = self.spec.inputs["network"]
        return positions(self.store, training.inputs["data"].path, training_of(training).split)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Return the labels that the network was trained on."""
        return self.rows["label_given"].to_numpy(np.int64)

    @cached_property
    def flipped(self) -> NDArray[np.bool_] | None:
        """Return which labels are flipped, None where that cannot be ranked."""
        found = (self.rows["label_given"] != self.rows["label_true"]).to_numpy(bool)
        return found if found.any() and not found.all() else None

    @cached_property
    def queries(self) -> FinishedStage:
        """Return the queries."""
        return open_finished(self.store, self.spec.inputs["queries"])

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Return the given labels of the queries."""
        return self.queries.read("label").astype(np.int64)

    def pixels(self) -> tuple[Doubles, Doubles]:
        """Return queries and examples as the network takes them, (Q, d) and (N, d).

        Graphs and tokens have no distances as they are: there a row counts what a graph is made of, or each token.
        """
        inputs = query_inputs(self.store, self.spec.inputs["queries"], self.device)
        found = [inputs, *self.batches()]
        rows = _counts(found) if _are_tokens(inputs) else [_as_rows(batch) for batch in found]
        return rows[0], np.concatenate(rows[1:])

    def features(self) -> tuple[Doubles, Doubles]:
        """Return what the trained network's output layer takes; without such a layer the logits."""
        import torch

        from tasks.capture import capture_inputs
        from tasks.modules.rows import values_of

        model = load_network(self.store, self.spec, self.device)
        inputs = query_inputs(self.store, self.spec.inputs["queries"], self.device)
        output = last_call(model, inputs[:1])

        def taken(batch: torch.Tensor) -> Doubles:
            if output is None:
                with torch.inference_mode():
                    found = model(batch.clone())
            else:
                found = values_of(capture_inputs(model, [output], batch)[output])
            values: Doubles = found.flatten(1).double().cpu().numpy()
            return values

        return taken(inputs), np.concatenate([taken(batch) for batch in self.batches()])

    def batches(self) -> list[torch.Tensor]:
        """Return the training examples as network inputs, batch by batch."""
        training = self.spec.inputs["network"]
        fetch = open_fetch(self.store, training, training_of(training).split, self.device, MEMORY_SAMPLES)
        starts = range(0, len(self.rows), BATCH)
        return [fetch(np.arange(start, min(start + BATCH, len(self.rows))))[0] for start in starts]


def count_numbers(example: torch.Tensor) -> int:
    """Return how many numbers, at most, an input of an example (1, ...) has where inputs are compared."""
    return COLUMNS if _are_tokens(example) else int(np.prod(example.shape[1:]))


def _are_tokens(inputs: torch.Tensor) -> bool:
    """Return whether inputs are sequences of tokens; in sequences of features, the last number is 1 for a step."""
    return inputs.ndim == 3 and inputs.shape[2] == 1


def _as_rows(inputs: torch.Tensor) -> Doubles:
    """Return inputs (n, ...) as rows (n, d)."""
    values = inputs.cpu().numpy()
    if values.ndim == 2:  # the numbers of nodes in a graph's vector have no distances
        return np.stack([summary_of(unpack_graph(vector)) for vector in values])
    flat: Doubles = values.reshape(len(values), -1).astype(np.float64)
    return flat


def _counts(inputs: Sequence[torch.Tensor]) -> list[Doubles]:
    """Return how often each token is in sequences (n, steps, 1), for each batch; 0 is padding.

    Tokens of a large vocabulary share columns.
    """
    batches = [one.flatten(1).long().cpu().numpy() for one in inputs]
    columns = max(1, min(COLUMNS, max(int(batch.max()) for batch in batches)))
    return [
        np.stack([np.bincount((row[row > 0] - 1) % columns, minlength=columns) for row in batch]).astype(np.float64)
        for batch in batches
    ]


def sign_of(counterfactual: StageSpec) -> int:
    """Return 1 for a measure that rises as the answer improves, -1 for the loss."""
    from tasks.tracing.measures import FALLS

    return -1 if counterfactual.parameters["measure"] in FALLS else 1


def _counterfactual(made: Compared) -> Scored:
    """Return derivatives, with the sign of an improvement; examples that harm the queries are probably wrong."""
    spec = made.spec.inputs[COUNTERFACTUAL_SCORE]
    score = sign_of(spec) * read_derivatives(made.store, spec)
    return score, None if measured_unit(spec) else -score.mean(axis=0)


def _tracin(made: Compared) -> Scored:
    """Return sums of products of gradients; at checkpoints, examples of large gradients are probably wrong."""
    spec = made.spec.inputs[TRACIN_SCORE]
    score, own = read_tracin(made.store, spec), read_self_influence(made.store, spec)
    if measured_unit(spec):
        return score, None
    return score, -score.mean(axis=0) if own is None else own


def _same_class(made: Compared) -> Scored:
    """Return 1 for the query's class, else 0."""
    from tasks.tracing.evaluation import same_class

    return same_class(made.classes, made.labels), None


def _nearest(made: Compared, values: tuple[Doubles, Doubles]) -> Scored:
    """Return similarities signed by class, and the neighbours' disagreement."""
    from tasks.tracing.evaluation import nearest_signed, neighbours_disagreement

    queries, examples = values
    score = nearest_signed(queries, made.classes, examples, made.labels)
    return score, neighbours_disagreement(examples, made.labels) if made.flipped is not None else None


def _shapley(made: Compared) -> Scored:
    """Return KNN-Shapley values in pixels, or in what inputs hold."""
    from tasks.tracing.evaluation import knn_shapley

    queries, examples = made.pixels()
    score = knn_shapley(queries, made.classes, examples, made.labels)
    return score, -score.mean(axis=0)


def _chance(made: Compared) -> Scored:
    """Return random numbers."""
    rng = np.random.default_rng([int(made.spec.inputs["network"].parameters.get("seed", 0)), RANDOM])
    score = rng.random((len(made.classes), len(made.labels)))
    return score, -score.mean(axis=0)


SCORES: dict[str, Callable[[Compared], Scored]] = {
    COUNTERFACTUAL_SCORE: _counterfactual,
    TRACIN_SCORE: _tracin,
    SAME: _same_class,
    PIXELS: lambda made: _nearest(made, made.pixels()),
    FEATURES: lambda made: _nearest(made, made.features()),
    SHAPLEY: _shapley,
    CHANCE: _chance,
}
SCORES |= {there: SCORES[name] for name, there in IN_INPUTS.items()}
