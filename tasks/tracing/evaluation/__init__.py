"""Evaluations of attributions, as in TRAK (Park et al. 2023) and quanda (Bareeva et al. 2024)."""

from tasks.tracing.evaluation.agreement import cardinality, class_agreement
from tasks.tracing.evaluation.baselines import knn_shapley, nearest_signed, neighbours_disagreement, same_class
from tasks.tracing.evaluation.margin import margins
from tasks.tracing.evaluation.mislabel import mislabel_auc
from tasks.tracing.evaluation.rank_correlation import (
    NoiseCeiling,
    RankCorrelation,
    linear_datamodelling_score,
    noise_ceiling,
    rank_correlation,
)

__all__ = [
    "NoiseCeiling",
    "RankCorrelation",
    "cardinality",
    "class_agreement",
    "knn_shapley",
    "linear_datamodelling_score",
    "margins",
    "mislabel_auc",
    "nearest_signed",
    "neighbours_disagreement",
    "noise_ceiling",
    "rank_correlation",
    "same_class",
]
