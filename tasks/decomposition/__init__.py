"""The few features that decide each class: Algorithm 1, the decomposed final layer, and their controls."""

from tasks.decomposition.ablation import NOISES, SCOPES, WHICH, choose_replaced, classes_of_scope, draw_normals, perturb
from tasks.decomposition.controls import CONTROLS, Control, Statistics
from tasks.decomposition.coverage import Coverage, share_of_histogram
from tasks.decomposition.head import Head, find_head, replace_head
from tasks.decomposition.head_scores import HeadScores
from tasks.decomposition.histogram import Cell, FeatureHistogram, FeatureMoments
from tasks.decomposition.influential import InfluentialFeatures, influential_features, pick_sets
from tasks.decomposition.linear import DecomposedLinear
from tasks.decomposition.maps import ContrastMaps, contrast_maps, least_frequent
from tasks.decomposition.overlap import Overlap, measure_overlap, membership

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
