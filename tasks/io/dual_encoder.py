"""The tiny dual encoder: an image-text model for users without one, trained on mini-Broden."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.io.annotations import vocabulary_of
from tasks.io.drawing.labels import CATEGORIES, PAIRS
from tasks.io.feature_files import named
from tasks.io.words import WordList

SIZE = 64  # pixels of the input
WIDTH = 64  # e, length of a feature
BATCH = 64  # images of one pass


class DualEncoder(nn.Module):
    """A convolutional network for images and a table of words, about 200,000 parameters in all."""

    def __init__(self, n_words: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            *_block(3, 20, stride=2),
            *_block(20, 40, stride=1),
            *_block(40, 80, stride=2),
            *_block(80, 96, stride=1),
            *_block(96, 96, stride=2),
        )
        self.head = nn.Linear(2 * 96, WIDTH)
        self.words = nn.Parameter(torch.randn(n_words, WIDTH) / WIDTH**0.5)
        self.scale = nn.Parameter(torch.tensor(2.0))  # logarithm of the factor of the cosines
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def forward(self, images: Tensor) -> Tensor:
        """Return unit rows (n, e) of images (n, 3, 64, 64), 0..1."""
        maps = self.stages(2 * images - 1)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        return F.normalize(self.head(pooled), dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (n, words) that a word holds for an image."""
        logits: Tensor = self(images) @ F.normalize(self.words, dim=1).T * self.scale.exp() + self.bias
        return logits


class TinyDualEncoder:
    """The trained tiny dual encoder as an image-text model; its words are mini-Broden's labels.

    Parameters
    ----------
    state : tensors by name, as `tasks.training.dual_encoder.train_dual_encoder` returns them
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._model = DualEncoder(len(mini_broden_words().words))
        try:
            self._model.load_state_dict(dict(state))
        except RuntimeError as error:
            why = " ".join(str(error).split())[:160]
            raise ValueError(f"dual encoder: expected its own weights, found others ({why}); train it again") from error
        self._model.eval()

    @torch.inference_mode()
    def encode_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit rows (n, 64) float32 of RGB images (n, H, W, 3) uint8 of any size."""
        rows = [self._model(planes(images[start : start + BATCH])) for start in range(0, len(images), BATCH)]
        found: NDArray[np.float32] = torch.cat(rows).numpy() if rows else np.zeros((0, WIDTH), dtype=np.float32)
        return found

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit rows (S, 64) float32 of words; raise ValueError for a word that mini-Broden does not have."""
        positions = torch.from_numpy(word_positions(texts))
        rows: NDArray[np.float32] = F.normalize(self._model.words.detach(), dim=1)[positions].numpy()
        return rows


def mini_broden_words() -> WordList:
    """Return the words of the tiny dual encoder, in the order of its table."""
    return WordList.of_vocabulary(vocabulary_of(PAIRS, CATEGORIES))


def word_positions(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return the row of each word in the table; raise ValueError for a word that mini-Broden does not have."""
    positions = mini_broden_words().positions(texts)
    unknown = [text for text, position in zip(texts, positions, strict=True) if position < 0]
    if unknown:
        raise ValueError(
            f"dual encoder: expected words of mini-broden, found {named(unknown)}; use another image-text model "
            "for these words"
        )
    return positions


def planes(images: NDArray[np.uint8]) -> Tensor:
    """Return images (n, H, W, 3) uint8 as (n, 3, 64, 64) float32, 0..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
    if pixels.shape[2:] != (SIZE, SIZE):
        pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    return pixels.contiguous(memory_format=torch.channels_last)


def _block(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
    """Return a convolution with its normalisation and activation."""
    return [nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
