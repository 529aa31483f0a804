"""Beam search for captions, and their order by pointwise mutual information with the regions (MILAN, eq. 3)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

States = tuple[Tensor, ...]
Next = Callable[[Tensor, States], tuple[Tensor, States]]


class Beams(NamedTuple):
    """The best token sequences of B rows, most probable first.

    Attributes
    ----------
    tokens : (B, width, length) int64, `stop` after the end
    log_p : (B, width), -inf where there are fewer sequences
    """

    tokens: Tensor
    log_p: Tensor


def beam_search(
    following: Next, states: States, *, start: int, stop: int, never: Sequence[int], width: int, length: int
) -> Beams:
    """Search the most probable token sequences that are not empty, and end with `stop`.

    Parameters
    ----------
    following : returns log probabilities (R, tokens) of the next token and the next states, from the last tokens (R,)
        int64 and the states
    states : first states, each (B, ...)
    start : token before a sequence
    stop : token that ends a sequence
    never : tokens that no sequence may have
    width : sequences that are kept of each row
    length : tokens of a sequence at most, with `stop`; one that has not ended before ends with the last of them

    Returns
    -------
    Beams; with a width of all sequences the search is exhaustive. Of equal sequences either may come first

    Notes
    -----
    A sequence without its `stop` would be compared with whole ones by a probability without that factor.
    """
    n_rows = len(states[0])
    tokens = torch.full((n_rows, 1, 1), start, dtype=torch.int64, device=states[0].device)
    log_p = torch.zeros(n_rows, 1, dtype=states[0].dtype, device=states[0].device)
    for position in range(length):
        n_beams = tokens.shape[1]
        found, states = following(tokens[:, :, -1].reshape(-1), states)
        step = found.reshape(n_rows, n_beams, -1).clone()
        step[..., [*never, stop] if position == 0 else list(never)] = -torch.inf
        if position == length - 1:
            step = torch.where(torch.arange(step.shape[2], device=step.device) == stop, step, -torch.inf)
        ended = tokens[:, :, -1] == stop
        step[ended] = -torch.inf
        step[..., stop] = torch.where(ended, 0.0, step[..., stop])
        total = (log_p[..., None] + step).flatten(1)
        log_p, chosen = total.topk(min(width, total.shape[1]), dim=1)
        beam, token = chosen // step.shape[2], chosen % step.shape[2]
        before = tokens.gather(1, beam[..., None].expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([before, token[..., None]], dim=2)
        rows = (torch.arange(n_rows, device=beam.device)[:, None] * n_beams + beam).reshape(-1)
        states = tuple(state[rows] for state in states)
        if bool((tokens[:, :, -1] == stop).all()):
            break
    return _filled(tokens[:, :, 1:], log_p, stop, width, length)


def rerank(log_p: Tensor, log_prior: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Order captions by log p(d | E) - weight * log p(d).

    Parameters
    ----------
    log_p : (B, width), log probabilities of captions given the regions; -inf where there is none
    log_prior : (B, width), their log probabilities under the language model
    weight : of the language model; 0 keeps the order

    Returns
    -------
    scores (B, width), falling, and the index (B, width) int64 of each caption; equal ones by lower index
    """
    scores = torch.where(log_p.isneginf(), log_p, log_p - weight * log_prior)
    return torch.sort(scores, dim=1, descending=True, stable=True)


def _filled(tokens: Tensor, log_p: Tensor, stop: int, width: int, length: int) -> Beams:
    """Return beams of the whole width and length."""
    n_rows, n_beams, n_tokens = tokens.shape
    filled = torch.full((n_rows, width, length), stop, dtype=torch.int64, device=tokens.device)
    filled[:, :n_beams, :n_tokens] = tokens
    more = torch.full((n_rows, width - n_beams), -torch.inf, dtype=log_p.dtype, device=log_p.device)
    return Beams(filled, torch.cat([log_p, more], dim=1))
