"""Contributions of weight updates to representations (Pfahler & Morik, AAAI 2022)."""

from tasks.tracing.class_share import ClassShare, shares_of_classes
from tasks.tracing.completeness import completeness_residual
from tasks.tracing.contributed import Contributions
from tasks.tracing.coverage import COVERED, check_covered, covered
from tasks.tracing.decay import DecaySeries, decay_contributions, decay_known, decay_series
from tasks.tracing.densities import ridge_densities
from tasks.tracing.derivatives import TrainingDerivatives, training_derivatives
from tasks.tracing.influence import InfluenceSums, Influential, first_of, influential_examples
from tasks.tracing.logits import logit_contributions
from tasks.tracing.projections import contributions, gammas, unit_contributions
from tasks.tracing.projector import Projector
from tasks.tracing.ridges import RidgeHistogram

__all__ = [
    "COVERED",
    "ClassShare",
    "Contributions",
    "DecaySeries",
    "InfluenceSums",
    "Influential",
    "Projector",
    "RidgeHistogram",
    "TrainingDerivatives",
    "check_covered",
    "completeness_residual",
    "contributions",
    "covered",
    "decay_contributions",
    "decay_known",
    "decay_series",
    "first_of",
    "gammas",
    "influential_examples",
    "logit_contributions",
    "ridge_densities",
    "shares_of_classes",
    "training_derivatives",
    "unit_contributions",
]
