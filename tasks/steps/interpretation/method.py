"""What a method of interpretation is: its stages, what it plans for a coreset, and how its features are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Json
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.step import Step

if TYPE_CHECKING:
    from torch import Tensor

Maps = NDArray[np.float32]
Head = Callable[["Tensor"], "Tensor"]  # maps (n, h, w, d) -> logits (n, C), differentiable


class TokenHead(Protocol):
    """A head of maps that also takes the tokens set apart, for layers of tokens that have them."""

    def __call__(self, maps: "Tensor", apart: Maps | None = None) -> "Tensor":
        """Return the logits (n, C) of maps (n, h, w, d) and tokens (n, k, d)."""
        ...


@dataclass(frozen=True)
class Expressed:
    """Maps (n, h, w, d) as the features of a class express them.

    Attributes
    ----------
    columns : (n h w, c) float64, for the shape distance
    reconstruction : (n, h, w, d) float32, what the features keep of the maps
    """

    columns: NDArray[np.float64]
    reconstruction: Maps


class ClassFeatures(Protocol):
    """The features of one class: the common form of all methods, which evaluation and gallery use."""

    def express(self, maps: Maps) -> Expressed:
        """Return columns and reconstruction of maps (n, h, w, d); one call, since both need the same codes."""
        ...

    def heat_maps(self, maps: Maps, size: tuple[int, int]) -> Maps:
        """Return where the class's most important features lie in n images of `size`, (n, H, W) in [0, 1]."""
        ...


class DirectedFeatures(ClassFeatures, Protocol):
    """The features of one class where each is a direction in the space of the layer's channels."""

    def responses(self, maps: Maps) -> Maps:
        """Return how strongly each of r features responds at each position of maps (n, h, w, d): (n, h, w, r)."""
        ...

    def directions(self) -> NDArray[np.float64]:
        """Return the directions (r, d); a direction of length 0 is not a feature."""
        ...

    def contributions(self, head: Head, maps: Maps, responses: Maps, label: int) -> tuple[NDArray[np.float64], float]:
        """Return what the features add to the logit of a class, mean over n images with these maps and responses.

        Returns
        -------
        (r,) the derivative of the logit along each feature's part of the maps; and the logit that they are parts of
        """
        ...


class Plan(Protocol):
    """Plans the features of one coreset."""

    def __call__(
        self, activations: StageSpec, selection: StageSpec, parameters: Mapping[str, Json], seed: int
    ) -> StageSpec:
        """Return the spec of the last stage, which reads the others of the method.

        Its parameter `interpreter` is the name of the method, its input `activations` the first argument. Its summary
        holds `classes`: by label the numbers `kept`, `relative_error` and `seconds` of the fit.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A method of interpretation.

    Attributes
    ----------
    steps : the kinds of stages that it brings
    plan : the features of one coreset: specs only, no store is asked
    read : opens finished features; the result gives the features of a class by the class's index
    check : (**parameters) -> None, raises ValueError naming a bad parameter; its signature lists the parameters
    n_columns : most columns that the features of a class have, from the spec and the number of channels
    scores : (features, held-out activations, parameters) -> the spec of a stage with scores of the features as a whole;
        None for methods without such scores
    evaluate : (features, features of the full data, held-out activations) -> the spec of the comparison; None for the
        common one, which needs nothing but the layer's maps. Its summary has `measures`, its array `values` (class,
        measure) at least those of the common one, and its array `label` the classes.
    grow : (features, features of the next smaller coreset of the same draw) -> the same features from sums that grow
        from those of the smaller coreset; None for methods that fit each coreset alone
    pictures : (features of coresets by title, features of the full data, held-out activations) -> the spec of pictures
        of what only coresets show; None for methods without such pictures
    directed : as `read`, for features that are directions; None for methods with other features
    cards : (features, activations of the images to show) -> the spec of a stage with the layout of `card_layout`; None
        for the common one, which methods with directions have
    numbers : as `read`, the numbers of a class's features where equal numbers mean equal features, as with units; the
        summary of the features then has `layers`, the units of each ReLU call. None for features that are directions
    noun : name of one feature
    reads_maps : (parameters) -> whether the features are learned from stored maps
    tables : (store, features, their evaluation, their scores or None) -> further tables of one coreset for the report,
        by name; None for methods without such tables
    """

    steps: tuple[Step, ...]
    plan: Plan
    read: Callable[[Store, StageSpec], Callable[[int], ClassFeatures]]
    check: Callable[..., None]
    n_columns: Callable[[StageSpec, int], int]
    scores: Callable[[StageSpec, StageSpec, Mapping[str, Json]], StageSpec] | None = None
    evaluate: Callable[[StageSpec, StageSpec, StageSpec], StageSpec] | None = None
    grow: Callable[[StageSpec, StageSpec], StageSpec] | None = None
    pictures: Callable[[Mapping[str, StageSpec], StageSpec, StageSpec], StageSpec] | None = None
    directed: Callable[[Store, StageSpec], Callable[[int], DirectedFeatures]] | None = None
    cards: Callable[[StageSpec, StageSpec], StageSpec] | None = None
    numbers: Callable[[Store, StageSpec], Callable[[int], NDArray[np.int64]]] | None = None
    noun: str = "feature"
    reads_maps: Callable[[Mapping[str, Json]], bool] = lambda _: True
    tables: Callable[[Store, StageSpec, StageSpec, StageSpec | None], Mapping[str, pd.DataFrame]] | None = None
