"""Train the tiny dual encoder on drawn images, with the words that cover a part of them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.io.annotations import coverage
from tasks.io.dual_encoder import SIZE, DualEncoder, mini_broden_words, planes
from tasks.io.mini_broden import draw
from tasks.io.randomness import seeded

VERSION = 1  # of the training, a part of stage keys
DRAWINGS = 2**40  # first seed of training images, which keeps them apart from those of probing sets
PRESENT = 0.005  # share of the pixels from which a word holds for an image
STEPS, BATCH = 700, 64  # 44,800 images
RATE, DECAY, WARM_UP = 3e-3, 1e-2, 0.15  # learning rate, weight decay, share of steps until the full rate


def train_dual_encoder(
    seed: int = 0, *, steps: int = STEPS, on_step: Callable[[int, float], None] | None = None
) -> dict[str, Tensor]:
    """Train the tiny dual encoder; each image is drawn once.

    Parameters
    ----------
    seed : seed of first weights and of images
    steps : steps of 64 images; 700 take about 1.7 minutes of one core
    on_step : called after each step with its number and its loss

    Returns
    -------
    tensors by name, for `tasks.io.dual_encoder.TinyDualEncoder`

    Notes
    -----
    The loss is the pairwise contrastive loss of Zhai et al. 2023 (SigLIP): each pair of an image and a word is
    classified on its own, since most words hold for many images of a batch.
    """
    n_words = len(mini_broden_words().words)
    with seeded(seed, torch.device("cpu")):
        model = DualEncoder(n_words).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stub
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2), pct_start=WARM_UP)
    for step in range(steps):
        images, present = drawn_batch(DRAWINGS + seed, step * BATCH, BATCH, n_words)
        losses = F.binary_cross_entropy_with_logits(model.logits(images), present, reduction="none")
        loss = losses.sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, loss.item())
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def drawn_batch(seed: int, start: int, n: int, n_words: int) -> tuple[Tensor, Tensor]:
    """Return images (n, 3, 64, 64) from `start` on, and whether each word holds for each, (n, words) float32."""
    images, masks = zip(*(draw(seed, index, SIZE) for index in range(start, start + n)), strict=True)
    present = coverage(np.stack(masks), n_words + 1)[:, 1:] >= PRESENT
    return planes(np.stack(images)), torch.from_numpy(present).float()
