"""What a method of interpretation is: its stages, what it plans for a coreset, and how its features are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Json
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.step import Step

Maps = NDArray[np.float32]


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
    reads_maps: Callable[[Mapping[str, Json]], bool] = lambda _: True
    tables: Callable[[Store, StageSpec, StageSpec, StageSpec | None], Mapping[str, pd.DataFrame]] | None = None
