"""The items of a source: a row per listed sample, an image per read sample."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_LABEL = 2**63 - 1  # the largest int64
Picture = Image.Image | NDArray[np.uint8]  # a decoded file, or an array (H, W) or (H, W, C)


class Row(NamedTuple):
    """One sample of a listing, which does not decode its image."""

    key: str  # split/..., unique in the source
    label: int  # index of the network output
    split: str  # "all" for a source without splits
    size: int  # bytes
    etag: str  # changes with the file; "" where the whole source has a digest


@dataclass(frozen=True)
class Vector:
    """A sample that is not an image, float32 as its network takes it: (K,) of a graph, (steps, d) of a sequence."""

    values: NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One sample's decoded image or its vector, and the digest of its file or array."""

    image: Picture | Vector
    digest: str  # 32 hex digits, BLAKE2b-128

    @property
    def picture(self) -> Picture:
        """Return the image; raise ValueError for a vector."""
        if isinstance(self.image, Vector):
            raise ValueError("expected data of images, found graphs or sequences; name another data set")
        return self.image


def mode_of(image: Picture | Vector) -> str:
    """Return an image's mode in PIL's terms, such as L, RGB or CMYK; an array's mode follows from its channels."""
    if isinstance(image, Vector):
        return "vector"
    if isinstance(image, Image.Image):
        return image.mode
    channels = 1 if image.ndim == 2 else image.shape[-1]
    return {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")


def file_digest(raw: bytes) -> str:
    """Return the digest of a file's bytes."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def array_digest(image: NDArray[np.uint8] | NDArray[np.float32]) -> str:
    """Return the digest of an array's shape and values."""
    shape = "x".join(map(str, image.shape)).encode()
    return hashlib.blake2b(shape + b":" + image.tobytes(), digest_size=16).hexdigest()
