"""All detectors of concepts by name, and the check of those that a config names."""

from typing import Any

from configs.concepts import Concepts
from storage.documents import Document
from storage.specs import StageSpec
from tasks.steps.concepts.clip_dissect import clip_dissect
from tasks.steps.concepts.detector import Detector
from tasks.steps.concepts.milan import MILAN_DETECTOR
from tasks.steps.concepts.network_dissection import NETWORK_DISSECTION_DETECTOR

OWN = ("temperature", "tau")  # settings of the embedding and the threshold, not of the detector
CALIBRATED, SHIPPED = "calibrated", "shipped"  # taus by name: from the run's own null, and a fixed one

DETECTORS: dict[str, Detector] = {
    **{name: clip_dissect(name) for name in ("cos", "cos_cubed", "wpmi", "soft_wpmi", "rank_reorder")},
    "network-dissection": NETWORK_DISSECTION_DETECTOR,
    "milan": MILAN_DETECTOR,
}


def detector_settings(settings: dict[str, Any]) -> Document:  # Any: the method's own
    """Return a detector's own parameters, without temperature and tau."""
    return {key: value for key, value in settings.items() if key not in OWN}


def threshold_settings(settings: dict[str, Any]) -> Document:  # Any: the method's own
    """Return temperature and tau of a detector, where they are set."""
    return {key: value for key, value in settings.items() if key in OWN}


def check_detectors(asked: Concepts) -> None:
    """Check the names of the detectors of question 3, temperature and tau; sizes of stages check the rest.

    Raises
    ------
    ValueError : an unknown detector, or a number out of range; the message names the config's key
    """
    for name, settings in asked.detectors.items():
        key = f"concepts.detectors.{name}"
        if name not in DETECTORS:
            raise ValueError(f"{key}: unknown detector {name!r}; known: {', '.join(DETECTORS)}")
        _check_own(key, settings)


def detector_of(spec: StageSpec) -> Detector:
    """Return the detector whose findings a `neurons` stage reads."""
    return DETECTORS[spec.parameters["detector"]]


def _check_own(key: str, settings: dict[str, Any]) -> None:  # Any: the method's own
    """Raise ValueError for a temperature or a tau that cannot be."""
    temperature, tau = settings.get("temperature", 1.0), settings.get("tau", 0.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature > 0:
        raise ValueError(f"{key}.temperature: expected a number above 0, found {temperature!r}")
    if tau not in (CALIBRATED, SHIPPED) and (isinstance(tau, bool) or not isinstance(tau, int | float)):
        raise ValueError(f"{key}.tau: expected a number, {CALIBRATED!r} or {SHIPPED!r}, found {tau!r}")
