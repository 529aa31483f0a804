"""Image-text models: unit features of images and of texts in one space, by one protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.io.dual_encoder import TinyDualEncoder
from tasks.io.open_clip import OpenClip

State = Mapping[str, Tensor]


class ImageText(Protocol):
    """A model that encodes images and texts."""

    def encode_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit rows (n, e) of RGB images (n, H, W, 3)."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit rows (S, e) of texts."""


IMAGE_TEXT: dict[str, Callable[[str, str, State], ImageText]] = {
    "dual-encoder": lambda path, model, state: TinyDualEncoder(state),
    "open-clip": lambda path, model, state: OpenClip(path, model),
}


def open_image_text(kind: str, *, path: str = "", model: str = "", state: State | None = None) -> ImageText:
    """Open an image-text model.

    Parameters
    ----------
    kind : a name of `IMAGE_TEXT`
    path : of `open-clip`, local weights or a folder
    model : of `open-clip`, name of the architecture; "" for a folder
    state : of `dual-encoder`, its trained weights

    Returns
    -------
    ImageText
    """
    return IMAGE_TEXT[kind](path, model, state or {})
