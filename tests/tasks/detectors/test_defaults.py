"""Shipped temperatures and taus: one of each detector, and what the formulas state."""

import math

import numpy as np
import pytest

from tasks.detectors import SIMILARITIES
from tasks.detectors.defaults import DEFAULTS, MILAN, NETWORK_DISSECTION, default_tau


def test_each_detector_has_defaults() -> None:
    assert set(DEFAULTS) == {*SIMILARITIES, NETWORK_DISSECTION, MILAN}
    for name, default in DEFAULTS.items():
        assert default.temperature > 0
        assert math.isfinite(default_tau(name, 64, 100))
    assert default_tau(NETWORK_DISSECTION, 64, 100) == 0.04


@pytest.mark.parametrize("name", ["wpmi", "soft_wpmi"])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_chance_is_the_similarity_where_all_words_are_alike(name: str, lam: float) -> None:
    activations = np.random.default_rng(0).normal(size=(120, 4))
    similarity = SIMILARITIES[name](activations, np.full((120, 50), 0.3), lam=lam)
    above = {"wpmi": 5.0, "soft_wpmi": math.log(0.9 * 4)}[name]
    np.testing.assert_allclose(similarity, default_tau(name, 4, 50, lam=lam) - above, atol=1e-9)


def test_soft_wpmi_asks_for_nine_tenths_of_a_word() -> None:
    # the joint terms of 3 neurons are log of (0.92, 0.05, 0.03) apart from a constant: the first holds 92 %
    assert math.log(3) + math.log(0.92) > default_tau("soft_wpmi", 3, 10) > math.log(3) + math.log(0.88)


def test_bad_names_and_parameters_are_named() -> None:
    with pytest.raises(ValueError, match=r"detector: expected one of cos, .*milan, found 'cosine'"):
        default_tau("cosine", 1, 1)
    with pytest.raises(ValueError, match="top_k: expected an integer of at least 1, found 0"):
        default_tau("wpmi", 1, 1, top_k=0)
