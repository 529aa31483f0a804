"""The results that the page of the tracing question shows: frozen tables and images, nothing from a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.figures.tracing.ridges import Ridges
from tasks.report.pages import Image

__all__ = ["End", "EveryQuery", "Query", "QueryLayer", "Ranking", "Ridges", "TracingResults", "numbered"]


@dataclass(frozen=True)
class QueryLayer:
    """The parts of one layer's representation of a query.

    Attributes
    ----------
    layer : module name
    positive, negative : the training examples that added most and took away most, columns sample_id (int64),
        class_name (str), sum (of gamma), share (of ||z||^2), cosine_sum (NaN where unknown) and, where known, key
        (str), in order of rank
    ridges : densities of the step cosines by class, None where not made
    init_share : part of ||z||^2 that the initial weights hold, NaN where there is none
    preactivation_norm : ||z||
    classes : gamma by class, columns class_name, sum, share, and `examples` where only so many of each class were
        summed; None where unknown. Without ids it takes the place of the examples, summed from them if need be
    score : "gamma"; "logit" for contributions to the predicted class's logit: then the norm is the logit, and shares
        are of it; a score of the whole network has its name here and as `layer`; then shares are of the sum of the
        absolute values of all examples, and other numbers are NaN
    """

    layer: str
    positive: pd.DataFrame
    negative: pd.DataFrame
    ridges: Ridges | None
    init_share: float
    preactivation_norm: float
    classes: pd.DataFrame | None = None
    score: str = "gamma"


@dataclass(frozen=True)
class Query:
    """One image whose representation is explained.

    Attributes
    ----------
    network, seed : which network
    sample_id : running number in the data set
    split : of the data set
    true_class, predicted : class names
    probability : of the predicted class, 0..1
    image : (H, W, 3) uint8 or None
    layers : in order of depth
    data : name of the data set that the examples come from: two data sets may have the same ids
    source : name of the data set that the query comes from
    key : its key in the data set, such as a file name
    scores : what the examples contributed to the logit, where it was traced
    number : its place among the queries of its network, from 0, as `layerlore explain --query` takes it; None: its
        place in the page
    """

    network: str
    seed: int
    sample_id: int
    split: str
    true_class: str
    predicted: str
    probability: float
    image: Image | None
    layers: tuple[QueryLayer, ...]
    data: str = ""
    source: str = ""
    number: int | None = None
    key: str = ""
    scores: tuple[QueryLayer, ...] = ()


@dataclass(frozen=True)
class End:
    """The examples at one end of a ranking, by rank: (Q, k) each, labels as indices of the network's outputs."""

    ids: NDArray[np.int64]
    sums: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """One layer or score of all Q queries of a network.

    Attributes
    ----------
    name, score : as `layer` and `score` of QueryLayer
    top, bottom : the examples that added most and took away most
    whole : (Q,) what shares are of
    init : (Q,) share of the initial weights; None for scores
    classes : (Q, C) sums by class; None where unknown
    """

    name: str
    score: str
    top: End
    bottom: End
    whole: NDArray[np.float64]
    init: NDArray[np.float64] | None = None
    classes: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class EveryQuery:
    """All queries of one network and seed, to choose one by id, key or class.

    Attributes
    ----------
    data, source, split : as in Query
    table : a row per query: sample_id, key, true_class, predicted, probability
    images : (Q, H, W, 3) uint8, None where they must not be shown
    rankings : layers in order of depth, then scores
    keys : key of each example, by id
    names : class name by label, of the examples
    labels : label of each column of `Ranking.classes`
    """

    network: str
    seed: int
    data: str
    source: str
    split: str
    table: pd.DataFrame
    images: NDArray[np.uint8] | None
    rankings: tuple[Ranking, ...]
    keys: Mapping[int, str]
    names: Mapping[int, str]
    labels: tuple[int, ...]


def numbered(queries: Sequence[Query]) -> list[tuple[int, Query]]:
    """Return each query with its number."""
    return [(i if query.number is None else query.number, query) for i, query in enumerate(queries)]


@dataclass(frozen=True)
class TracingResults:
    """Results of the question "who taught the network that?".

    Attributes
    ----------
    networks : columns network (str), seed (int), model (str), accuracy (0..1), chance (share of the most frequent
        class), n_evaluate (held-out samples), n_classes (with training samples), n_outputs, loss, steps, layers (int),
        archive_bytes, recorder_waited_seconds, explain_seconds, anchor ("final" or "displacement"); where known, kind
        of the archive, plain_epoch_seconds and recorded_epoch_seconds (CPU seconds of an epoch's steps without and
        with recording), weight_bytes of the traced layers, explained (number of queries), data (name of the training
        data set)
    layers : columns network, seed, layer, kind (class of the module), weights (int), init_share, decay_share (NaN where
        it is not known, and then part of the examples'), examples_share and, where steps are missing,
        unrecorded_share (parts of ||z||^2, means over queries), residual_max, residual_median (of completeness),
        agreement_1, agreement_10 (class agreement@k, 0..1), cardinality (0..1) and, where known, split of a batch's
        update among its images ("example", "equal", or "partly" where only some steps are split by example),
        batch_share and ghosts_share (parts of examples_share: what the batches' own examples and the ghosts
        contributed), unit (bool: one neuron or filter), member_spread (deviation of the images' own parts from the
        equal part, relative to their size, 0..1) and member_against (share of parts with the opposite sign of their
        batch's sum), NaN where the parts are not known; rows in order of depth
    shares : columns network, seed, layer, epoch (int), label (int), class_name, gamma (mean over queries of
        gamma / ||z||^2)
    evaluation : columns network, seed, measure, layer ("" for the whole network), score, value, spread, baseline (NaN
        where unknown), baseline_name, n (int), note
    suspects : columns network, seed, rank (from 1), sample_id, key, label_given, label_true (missing where unknown),
        predicted, score (summed training loss), disagreement (0..1), data, shown (bool), given, truth, says (class
        names; truth None where unknown)
    teachers : the training examples that moved the suspects' answers from their label to another class, columns
        network, seed, by (the score: logit, counterfactual or tracin), sample_id (the suspect), other, other_class,
        place (from 1), example_id, example_key, example_label, class_name, value (in logits), share (of all that moved
        the answer there), data, shown (bool)
    titles : what a layer is called on the page, by network and name
    growth : columns network, seed, step, growth, of the adjoint of counterfactual influence
    queries : those to be shown
    images : (H, W, 3) uint8 training images by (data, sample id); used with training_images "show" only
    n_queries : how many queries there are, where more than are handed over
    every : all queries, where they are more than those to be shown
    held_out : (data set, split) without training images; a query of any other is treated as a training image
    """

    networks: pd.DataFrame
    layers: pd.DataFrame
    shares: pd.DataFrame
    evaluation: pd.DataFrame
    queries: tuple[Query, ...] = ()
    images: Mapping[tuple[str, int], Image] = field(default_factory=dict)
    held_out: tuple[tuple[str, str], ...] = (("", "val"), ("", "validation"), ("", "test"))
    n_queries: int = 0
    every: tuple[EveryQuery, ...] = ()
    suspects: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["network", "seed", "shown"]))
    teachers: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["network", "seed", "shown"]))
    titles: Mapping[tuple[str, str], str] = field(default_factory=dict)
    growth: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["network", "seed", "step", "growth"]))
