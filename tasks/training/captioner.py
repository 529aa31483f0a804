"""Train a captioner from regions with captions (MILAN, Hernandez et al. 2022): the decoder and the language model."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.detectors.captioner import DEVIATION, MEAN, SPECIALS, Captioner, Sizes
from tasks.io.randomness import seeded

BATCH, RATE, DROPOUT = 64, 1e-3, 0.5
ATTENTION = 1.0  # weight of the rule that attention over a whole caption is spread over the regions (Xu et al. 2015)
SMALLEST = 1e-6  # standard deviation of a feature that counts as constant


@dataclass(frozen=True)
class Regions:
    """Regions with captions; each row is a region with one of its captions.

    Attributes
    ----------
    features : (R, features) float32, of the pyramid encoder
    tokens : (R, length) int64, captions with start, stop and padding
    caption : (R,) int64, equal for rows of the same caption: their regions are exemplars of one another
    """

    features: Tensor
    tokens: Tensor
    caption: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)


@dataclass(frozen=True)
class Plan:
    """How long a captioner is trained, and how many regions it sees of a caption.

    Attributes
    ----------
    exemplars : regions of each example, drawn with replacement among those of its caption
    epochs : passes over the regions at most
    patience : epochs without a lower loss on the held-out regions after which training ends
    seed : of first weights, order and drawn regions
    """

    exemplars: int
    epochs: int
    patience: int
    seed: int


def train_captioner(
    train: Regions, held_out: Regions, sizes: Sizes, plan: Plan, on_epoch: Callable[[str, int, float], None]
) -> dict[str, Tensor]:
    """Train the decoder and the language model, each until its loss on held-out captions does not fall any more.

    Parameters
    ----------
    train, held_out : regions of different images
    sizes : numbers of units
    plan : length of the training
    on_epoch : called with the part ("decoder", "language model"), the epoch and its loss on held-out captions

    Returns
    -------
    tensors by name, for `tasks.detectors.captioner.captioner_of`: those of the best epoch

    Notes
    -----
    The authors stop at the best BLEU; the loss has less noise with few captions. Features are scaled to mean 0 and
    deviation 1, since their range depends on the network.
    """
    with seeded(plan.seed, torch.device("cpu")):
        model = Captioner(sizes, DROPOUT)
        deviation, mean = torch.std_mean(train.features, dim=0, correction=0)
        model.get_buffer(MEAN).copy_(mean)
        model.get_buffer(DEVIATION).copy_(torch.where(deviation > SMALLEST, deviation, 1.0))
        decoder = _decoder_losses(model, train, held_out, plan)
        language = _language_losses(model.lm, train, held_out, plan)
        own = [value for name, value in model.named_parameters() if not name.startswith("lm.")]
        _until_best(model, own, decoder, plan, lambda *found: on_epoch("decoder", *found))
        _until_best(
            model.lm, list(model.lm.parameters()), language, plan, lambda *found: on_epoch("language model", *found)
        )
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def draw_exemplars(
    caption: NDArray[np.int64], rows: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the regions of examples.

    Parameters
    ----------
    caption : (R,) caption of each region
    rows : (B,) the first region of each example
    count : regions of an example, the first one with it
    rng : of the other ones, drawn with replacement among the regions of the same caption

    Returns
    -------
    (B, count) int64
    """
    order = np.argsort(caption, kind="stable")
    starts = np.searchsorted(caption[order], caption[rows], side="left")
    stops = np.searchsorted(caption[order], caption[rows], side="right")
    drawn = order[rng.integers(starts[:, None], stops[:, None], (len(rows), count))]
    drawn[:, 0] = rows
    return drawn


def caption_loss(log_p: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean negative log probability of the tokens (R, length) after each position, without padding."""
    pad = log_p.shape[-1] - len(SPECIALS) + SPECIALS.index("<pad>")
    return F.nll_loss(log_p.flatten(0, 1), tokens.flatten(), ignore_index=pad)


Losses = Callable[[bool, int], Iterator[tuple[Tensor, int]]]  # training or not, epoch -> (loss, rows) of each batch


def _decoder_losses(model: Captioner, train: Regions, held_out: Regions, plan: Plan) -> Losses:
    """Return the losses of the decoder by batch; held-out examples are the same in every epoch."""

    def losses(training: bool, epoch: int) -> Iterator[tuple[Tensor, int]]:
        regions = train if training else held_out
        rng = np.random.default_rng((plan.seed, epoch) if training else (plan.seed,))
        order = rng.permutation(len(regions)) if training else np.arange(len(regions))
        for rows in _batches(order):
            drawn = draw_exemplars(regions.caption, rows, plan.exemplars, rng)
            tokens = regions.tokens[rows]
            log_p, weights = model(regions.features[drawn], tokens[:, :-1])
            loss = caption_loss(log_p, tokens[:, 1:])
            if training:
                loss = loss + ATTENTION * ((1 - weights.sum(dim=1)) ** 2).mean()
            yield loss, len(rows)

    return losses


def _language_losses(model: nn.Module, train: Regions, held_out: Regions, plan: Plan) -> Losses:
    """Return the losses of the language model by batch."""

    def losses(training: bool, epoch: int) -> Iterator[tuple[Tensor, int]]:
        regions = train if training else held_out
        order = np.random.default_rng((plan.seed, epoch)).permutation(len(regions))
        for rows in _batches(order):
            tokens = regions.tokens[rows]
            yield caption_loss(model(tokens[:, :-1]), tokens[:, 1:]), len(rows)

    return losses


def _batches(order: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    """Return an order in batches."""
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def _until_best(
    model: nn.Module, parameters: list[nn.Parameter], losses: Losses, plan: Plan, on_epoch: Callable[[int, float], None]
) -> None:
    """Train parameters of a model until the held-out loss does not fall any more, and keep the best ones."""
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    best, waited, kept = float("inf"), 0, copy.deepcopy(model.state_dict())
    for epoch in range(plan.epochs):
        model.train()
        for loss, _ in losses(True, epoch):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
            optimizer.step()
        model.eval()
        with torch.no_grad():
            found = [(loss.item(), rows) for loss, rows in losses(False, epoch)]
        mean = sum(loss * rows for loss, rows in found) / sum(rows for _, rows in found)
        on_epoch(epoch, mean)
        if mean < best:
            best, waited, kept = mean, 0, copy.deepcopy(model.state_dict())
        else:
            waited += 1
        if waited >= plan.patience:
            break
    model.load_state_dict(kept)
