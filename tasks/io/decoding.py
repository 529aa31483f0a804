"""Image files to decoded images, in threads (Pillow's decoders release the interpreter lock)."""

import io
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from tasks.io.files import read_bytes
from tasks.io.samples import Sample, file_digest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_images(keys: Sequence[str], locate: Callable[[str], str], threads: int) -> list[Sample]:
    """Read and decode the files that `locate` names for `keys`, in the order of `keys`."""
    if threads == 1 or len(keys) == 1:
        return [read_image(key, locate(key)) for key in keys]
    with ThreadPoolExecutor(threads, "decode") as pool:
        return list(pool.map(lambda key: read_image(key, locate(key)), keys))


def read_image(key: str, url: str) -> Sample:
    """Read and decode one file; every error names the sample and the file."""
    try:
        raw = read_bytes(url)
    except FileNotFoundError as error:
        raise ValueError(f"sample {key}: file {url} is missing; it was there when the data set was listed") from error
    except PermissionError as error:
        raise ValueError(f"sample {key}: no permission to read file {url}") from error
    return Sample(decode(raw, key, url), file_digest(raw))


def decode(raw: bytes, key: str, url: str) -> Image.Image:
    """Decode one image file whole, in the mode it is stored in."""
    try:
        image = Image.open(io.BytesIO(raw))
        image.load()
    except _DAMAGE as error:
        what = "empty file" if not raw else "corrupted or not an image"
        reason = "" if not raw else f" ({' '.join(str(error).split())[:120]})"
        raise ValueError(f"sample {key}: {what}: {url}{reason}; replace the file or take it out") from error
    return image
