"""The few features that decide each class: Algorithm 1, the decomposed final layer, and their controls."""

from importlib import import_module
from typing import TYPE_CHECKING

from tasks.decomposition.ablation import NOISES, SCOPES, WHICH, choose_replaced, classes_of_scope, draw_normals, perturb
from tasks.decomposition.controls import CONTROLS, Control, Statistics
from tasks.decomposition.coverage import Coverage, share_of_histogram
from tasks.decomposition.head_scores import HeadScores
from tasks.decomposition.histogram import Cell, FeatureHistogram, FeatureMoments
from tasks.decomposition.influential import InfluentialFeatures, influential_features, pick_sets
from tasks.decomposition.maps import ContrastMaps, contrast_maps, least_frequent
from tasks.decomposition.overlap import Overlap, measure_overlap, membership

if TYPE_CHECKING:
    from tasks.decomposition.head import Head, find_head, replace_head
    from tasks.decomposition.linear import DecomposedLinear

__all__ = [
    "CONTROLS",
    "NOISES",
    "SCOPES",
    "WHICH",
    "Cell",
    "ContrastMaps",
    "Control",
    "Coverage",
    "DecomposedLinear",
    "FeatureHistogram",
    "FeatureMoments",
    "Head",
    "HeadScores",
    "InfluentialFeatures",
    "Overlap",
    "Statistics",
    "choose_replaced",
    "classes_of_scope",
    "contrast_maps",
    "draw_normals",
    "find_head",
    "influential_features",
    "least_frequent",
    "measure_overlap",
    "membership",
    "perturb",
    "pick_sets",
    "replace_head",
    "share_of_histogram",
]

# What needs torch is imported when it is asked for: a plan names the controls without it.
_WITH_TORCH = {"DecomposedLinear": "linear", "Head": "head", "find_head": "head", "replace_head": "head"}


def __getattr__(name: str) -> object:
    """Return what is imported when it is asked for."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
