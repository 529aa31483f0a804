"""Decode image files in threads (Pillow's decoders release the interpreter lock)."""

import io
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache

from PIL import Image, UnidentifiedImageError

from tasks.io.files import open_file, read_bytes, reason
from tasks.io.samples import Sample, file_digest

# Usual endings: such a file is an image by its name alone, so its folder's digest does not mark it.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Formats that Pillow recognises by their first bytes, but decodes with another program or not at all.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@cache
def decoded_formats() -> tuple[str, ...]:
    """Return the names of the formats that the installed Pillow decodes by itself, such as JPEG."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_DECODED))


@cache
def decoded_extensions() -> frozenset[str]:
    """Return the endings of files that the installed Pillow decodes by itself, in lower case, with their dots."""
    formats = {*decoded_formats()}
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


@lru_cache(maxsize=2**17)
def holds_image(url: str, etag: str) -> bool:
    """Return whether Pillow recognises a file as an image by its first bytes; `etag` is a part of the cache key."""
    try:
        stream = open_file(url)
    except OSError as error:
        raise ValueError(f"file {url} {reason(error)}") from error
    with stream:
        try:
            Image.open(stream, formats=decoded_formats()).close()
        except Image.DecompressionBombError:
            return True  # an image that is refused when it is read
        except _DAMAGE:
            return False
    return True


def read_images(keys: Sequence[str], locate: Callable[[str], str], threads: int) -> list[Sample]:
    """Read and decode the files of `keys`, which `locate` finds, in the order of `keys`."""
    if threads == 1 or len(keys) == 1:
        return [read_image(key, locate(key)) for key in keys]
    with ThreadPoolExecutor(threads, "decode") as pool:
        return list(pool.map(lambda key: read_image(key, locate(key)), keys))


def read_image(key: str, url: str) -> Sample:
    """Read and decode one image file; every error names the sample and the file."""
    try:
        raw = read_bytes(url)
    except FileNotFoundError as error:
        raise ValueError(f"sample {key}: expected file {url}, as when the data set was listed, found none") from error
    except PermissionError as error:
        raise ValueError(f"sample {key}: no permission to read file {url}") from error
    return Sample(decode(raw, key, url), file_digest(raw))


def decode(raw: bytes, key: str, url: str) -> Image.Image:
    """Decode one image file completely, in its stored mode."""
    try:
        image = Image.open(io.BytesIO(raw))
        image.load()
    except _DAMAGE as error:
        what = "empty file" if not raw else "corrupted or not an image"
        # Pillow names the buffer of bytes that it knows nothing of
        known = raw and not isinstance(error, UnidentifiedImageError)
        reason = f" ({' '.join(str(error).split())[:120]})" if known else ""
        raise ValueError(f"sample {key}: {what}: {url}{reason}; replace the file or take it out") from error
    return image
