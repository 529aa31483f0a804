"""Shipped temperature and tau of each detector.

The temperatures of `cos_cubed`, `soft_wpmi` and Network Dissection are the paper's, the others those of the similarity
nearest in scale. Tau of Network Dissection is its authors' IoU. The other taus were chosen on real data: 2,721 images
of `broden_real`, ConSE features, 142 and 763 words, and two layers of SqueezeNet 1.1 with 256 neurons each. The images
were permuted for each neuron on its own. The table has the shares of neurons above tau in those four cases, permuted
and real, in percent (`rank_reorder` with 763 words: 96 neurons).

| similarity | tau | permuted | real |
| --- | --- | --- | --- |
| cos | .9 | 0 0 1 1 | 0 0 2 2 |
| cos_cubed | .3 | 0 0 2 2 | 2 6 15 15 |
| rank_reorder | -.5 | 0 1 3 4 | 1 1 6 23 |
| wpmi | 5 above chance | 0 1 2 4 | 9 20 28 38 |
| soft_wpmi | log(.9 K) | 1 1 2 3 | 8 9 11 11 |

The permuted neurons' similarity depends on the layer, the words and the number of images. With few neurons `soft_wpmi`
does not separate: of 32 permuted neurons, 12 to 39 % exceed its tau. A tau calibrated on the run's own layer
(`tasks.concepts.interpretable.calibrated_tau`) is therefore better than these.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.detectors.methods import make_method
from tasks.detectors.pointwise import MIN_PROBABILITY, SoftWpmi, Wpmi

NETWORK_DISSECTION, MILAN = "network-dissection", "milan"


@dataclass(frozen=True)
class Defaults:
    """Temperature of the embedding, and tau where it does not depend on the numbers of neurons and words."""

    temperature: float
    tau: float | None


DEFAULTS: dict[str, Defaults] = {
    "cos": Defaults(0.01, 0.9),
    "cos_cubed": Defaults(0.01, 0.3),
    "wpmi": Defaults(0.1, None),
    "soft_wpmi": Defaults(0.1, None),
    "rank_reorder": Defaults(0.1, -0.5),
    NETWORK_DISSECTION: Defaults(0.01, 0.04),
    MILAN: Defaults(1e-6, 0.0),
}
ABOVE_CHANCE = 5.0
SHARE = 0.9  # of a word's probability over neurons that one neuron must hold


def default_tau(name: str, n_neurons: int, n_words: int, **params: Any) -> float:  # Any: by method
    """Return the shipped tau of a detector.

    Parameters
    ----------
    name : a similarity, or "network-dissection"
    n_neurons : neurons that are not dead and share a marginal, at least 1
    n_words : number of words, at least 1
    params : parameters of the similarity

    Returns
    -------
    tau

    Notes
    -----
    At lam = 1 a similarity of mutual information is log(K share), where the share is the neuron's part of the word's
    sum over K neurons: its bound is log K, and tau asks for the share 0.9. At lam < 1 the joint term of chance, with
    1 / S for each word, stays with the weight 1 - lam; `wpmi` asks for 5 above it.
    """
    if name not in DEFAULTS:
        raise ValueError(f"detector: expected one of {', '.join(DEFAULTS)}, found {name!r}")
    tau = DEFAULTS[name].tau
    if tau is not None:
        return tau
    method = make_method(name, **params)
    assert isinstance(method, Wpmi | SoftWpmi)
    if isinstance(method, Wpmi):
        return (1 - method.lam) * method.top_k * math.log(1 / n_words + MIN_PROBABILITY) + ABOVE_CHANCE
    shares = method.p_start - np.arange(method.top_k) / method.top_k * (method.p_start - method.p_end)
    chance = float(np.log(1 + shares * (1 / n_words - 1) + MIN_PROBABILITY).sum())
    return (1 - method.lam) * chance + math.log(max(SHARE * n_neurons, 1.0))
