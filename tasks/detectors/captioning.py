"""The captions of neurons: the best sequences of a captioner, in the order of their mutual information."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.detectors.beam_search import States, beam_search, rerank
from tasks.detectors.captioner import Captioner, State, caption_log_p

WEIGHT, WIDTH, LENGTH = 0.2, 50, 15  # of the paper: weight of the language model, beam, words of a caption


@dataclass(frozen=True)
class Search:
    """How captions are searched.

    Attributes
    ----------
    width : captions of a neuron that the beam keeps
    weight : of the language model in the order of these captions
    length : words of a caption at most
    """

    width: int = WIDTH
    weight: float = WEIGHT
    length: int = LENGTH


@torch.inference_mode()
def caption_regions(model: Captioner, features: Tensor, search: Search, best: int) -> tuple[Tensor, Tensor]:
    """Return the best captions of neurons.

    Parameters
    ----------
    model : in evaluation mode
    features : (B, n, features) float32, of the n regions of each neuron
    search : how captions are searched
    best : captions of each neuron, at most the width

    Returns
    -------
    tokens (B, best, length) int64, with stops after shorter captions, and scores (B, best), falling:
    log p(d | E) - weight * log p(d), with the stop of the caption; -inf without caption
    """
    scaled, keys = model.prepare(features)
    start, stop = model.start, model.start + 1

    first, rows = model.begin(scaled), torch.arange(len(features), device=features.device)

    def following(tokens: Tensor, states: States) -> tuple[Tensor, States]:
        hidden, cell, at = states
        log_p, _, state = model.step(scaled[at], keys[at], tokens, State(hidden, cell))
        return log_p, (*state, at)

    beams = beam_search(
        following,
        (first.hidden, first.cell, rows),
        start=start,
        stop=stop,
        never=(start, stop + 1, stop + 2),
        width=search.width,
        length=search.length + 1,
    )
    flat = beams.tokens.flatten(0, 1)
    before = torch.cat([torch.full_like(flat[:, :1], start), flat[:, :-1]], dim=1)
    prior = caption_log_p(model.lm(before), flat, stop).reshape(beams.log_p.shape)
    scores, order = rerank(beams.log_p, prior, search.weight)
    tokens = beams.tokens.gather(1, order[:, :best, None].expand(-1, -1, search.length))  # without the last stop
    return tokens, scores[:, :best]
