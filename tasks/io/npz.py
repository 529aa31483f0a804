"""NumPy archives of images and labels; a process opens each archive once."""

import math
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Npz
from tasks.io.files import look_up, reason, shown
from tasks.io.samples import Row, Sample, array_digest

MAX_UNPACKED = 8 * 10**9  # largest number of bytes of a compressed array, which is held in memory whole
CHANNELS = range(1, 5)  # channels of an image: grey, with transparency, RGB, with transparency
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name
_ENCRYPTED = 1  # bit in the flags of a zip member
_lock = threading.Lock()


@dataclass(frozen=True)
class NpzSource:
    """Images and labels of one or more archives per split, with keys `<split>/<index in the split>`."""

    data: Npz

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all samples, splits in alphabetical order."""
        for split in sorted(self.data.paths):
            start = 0
            for path in paths_of(self.data.paths[split]):
                images, labels = self._arrays(path, split)
                size = int(images[0].nbytes) if len(images) else 0
                for i, label in enumerate(labels.tolist(), start):
                    yield Row(f"{split}/{i}", self._index(label, path, i - start), split, size, "")
                start += len(labels)

    def class_names(self) -> dict[int, str]:
        """Return the archive's labels as names where `classes` maps them; an archive does not have names."""
        return {index: str(label) for label, index in (self.data.classes or {}).items()}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return the images of `keys`."""
        images = [self._image(key) for key in keys]
        return [Sample(image, array_digest(image)) for image in images]

    def _index(self, label: int, path: str, i: int) -> int:
        """Return the network output index of a label; `i` is its index in the archive."""
        if self.data.classes is None:
            return label
        if label not in self.data.classes:
            raise ValueError(f"npz {path}: expected labels of `classes`, found {label} of image {i}; add it there")
        return self.data.classes[label]

    def _image(self, key: str) -> NDArray[np.uint8]:
        """Return the image of a key."""
        split, _, number = key.rpartition("/")
        i = int(number)
        for path in paths_of(self.data.paths[split]):
            images, _ = self._arrays(path, split)
            if i < len(images):
                return np.array(images[i])
            i -= len(images)
        raise ValueError(f"sample {key}: expected it in split {split!r}, found none; check whether the archive changed")

    def _arrays(
        self, path: str, split: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]:  # Any: any integer width
        """Return the checked images and labels of one archive of a split."""
        names = [name.replace("{split}", split) for name in (self.data.images, self.data.labels)]
        file = Path(path).expanduser()
        try:
            etag = look_up(str(file)).etag
        except OSError as error:
            raise ValueError(f"npz: file {shown(path)} {reason(error)}") from error
        with _lock:  # otherwise two threads would read the same archive twice
            return _open(str(file.resolve()), etag, *names)


def paths_of(paths: str | Sequence[str]) -> Sequence[str]:
    """Return one or more paths as a sequence."""
    return [paths] if isinstance(paths, str) else paths


def member_names(path: str) -> tuple[str, ...]:
    """Return the names of the arrays of an archive; none where it is not an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return ()


@lru_cache(maxsize=16)
def _open(
    path: str, etag: str, images_name: str, labels_name: str
) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]:  # Any: any integer width
    """Open one archive and check its arrays; `etag` is a part of the cache key."""
    images, labels = read_member(path, images_name), read_member(path, labels_name)
    _check_images(images, f"npz {path}: array {images_name!r}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((len(images),), (len(images), 1)):
        raise ValueError(
            f"npz {path}: array {labels_name!r}: expected integers ({len(images)},), found {labels.dtype} "
            f"{labels.shape}"
        )
    return images, labels.reshape(-1)


def _check_images(images: NDArray[Any], name: str) -> None:  # Any: this function checks the type
    """Raise ValueError unless an array holds images, with channels last if any."""
    # A last axis that may be channels is channels: (N, 3, 3, 3) is channels last, as documented.
    if images.ndim == 4 and images.shape[3] not in CHANNELS and images.shape[1] in CHANNELS:
        raise ValueError(
            f"{name}: expected channels last, found {images.dtype} {images.shape}, channels first; store it as "
            "images.transpose(0, 2, 3, 1), which is (N, H, W, C)"
        )
    flat = images.ndim not in (3, 4) or min(images.shape[1:]) < 1
    if images.dtype != np.uint8 or flat or (images.ndim == 4 and images.shape[3] not in CHANNELS):
        raise ValueError(
            f"{name}: expected uint8 (N, H, W) or (N, H, W, C) with C from 1 to 4, found {images.dtype} {images.shape}"
        )


def read_member(path: str, name: str) -> NDArray[Any]:  # Any: checked by the caller
    """Return one array of an archive: memory-mapped if it is stored uncompressed, else read whole.

    Raises
    ------
    ValueError : not an archive, a damaged one, or one without an array of that name
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if name in members and members[name].flag_bits & _ENCRYPTED:
                raise ValueError("it is encrypted")
            if name in members and members[name].compress_type == zipfile.ZIP_STORED:
                return _mapped(path, members[name])
            if name in members and members[name].file_size <= MAX_UNPACKED:
                with archive.open(members[name]) as stream:
                    return _unpacked(stream, members[name].file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"npz {path}: corrupted, or not an archive of numbers ({reason})") from error
    if name in members:
        raise ValueError(
            f"npz {path}: array {name!r}: expected at most {MAX_UNPACKED / 1e9:g} GB unpacked, found "
            f"{members[name].file_size / 1e9:.1f} GB; save it uncompressed by numpy.savez, which is memory-mapped"
        )
    raise ValueError(f"npz {path}: expected an array {name!r}, found {', '.join(members)}")


def _unpacked(stream: IO[bytes], size: int) -> NDArray[Any]:  # Any: checked by the caller
    """Return a compressed member of `size` bytes, read whole."""
    shape, _, dtype = _read_header(stream)
    if not dtype.hasobject:
        _check_length(shape, dtype, size - stream.tell())
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _check_length(shape: tuple[int, ...], dtype: np.dtype[Any], there: int) -> None:  # Any: any type of element
    """Raise ValueError where the number of bytes in a header is not that of the bytes after it."""
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"its header has {dtype} {shape}, but {there:,} bytes follow")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:  # Any: any type of element
    """Read a .npy header; return shape, whether the order is Fortran's, and dtype of its array."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _mapped(path: str, member: zipfile.ZipInfo) -> NDArray[Any]:  # Any: checked by the caller
    """Return an uncompressed member as a memory map: zip header, then .npy header, then data."""
    with open(path, "rb") as file:
        file.seek(member.header_offset + _LOCAL_HEADER - 4)
        name_length, extra_length = np.frombuffer(file.read(4), "<u2").tolist()
        file.seek(start := member.header_offset + _LOCAL_HEADER + name_length + extra_length)
        shape, fortran, dtype = _read_header(file)
        if dtype.hasobject:
            raise ValueError("it is an array of Python objects")
        _check_length(shape, dtype, member.file_size - (file.tell() - start))
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
