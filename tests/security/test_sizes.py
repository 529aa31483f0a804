"""Inputs that ask for more memory than they are large: refused with the limit, before it is taken."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import Npz
from storage.documents import DamagedError, decode
from storage.tensors import decode_tensors
from tasks.io import npz
from tasks.io.decoding import read_image
from tasks.io.npz import NpzSource
from tasks.io.weights import read_states

Shape = tuple[int, ...]


def npy(shape: Shape, data: bytes, kind: str = "|u1") -> bytes:
    """Return a .npy file whose header says `shape`, whatever follows it."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def write_npz(path: Path, images: bytes, method: int) -> Path:
    """Write an archive of these images and three labels."""
    labels = io.BytesIO()
    np.save(labels, np.zeros(3, np.int64))
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels.getvalue())
    return path


def rows(path: Path) -> int:
    """Return the number of samples of an archive."""
    return len(list(NpzSource(Npz.model_validate({"source": "npz", "paths": {"train": str(path)}})).rows()))


METHODS = pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])

# ------------------------------------------------------------------------------------------------ npz


@METHODS
@pytest.mark.parametrize(
    "shape", [(10**9, 64, 64), (10**7, 10, 10), (-1, 8, 8), (2**62, 2**62, 8), (3, 8, 9), (2**31, 2**31, 2**31, 3)]
)
def test_a_header_that_says_more_than_follows_is_refused(tmp_path: Path, method: int, shape: Shape) -> None:
    path = write_npz(tmp_path / "a.npz", npy(shape, b"\0" * 3 * 64), method)
    with pytest.raises(
        ValueError, match=r"npz .*a\.npz: (corrupted, or not an archive|array 'images': expected)"
    ) as caught:
        rows(path)
    assert "\n" not in str(caught.value)


@METHODS
def test_a_header_that_says_what_follows_is_taken(tmp_path: Path, method: int) -> None:
    assert rows(write_npz(tmp_path / "a.npz", npy((3, 8, 8), b"\0" * 3 * 64), method)) == 3


def test_a_compressed_array_larger_than_the_limit_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path / "a.npz", npy((3, 1000, 1000), b"\0" * 3_000_000), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 5000
    assert npz.MAX_UNPACKED == 8 * 10**9
    monkeypatch.setattr(npz, "MAX_UNPACKED", 2_000_000)
    expected = (
        r"array 'images': expected at most 0\.002 GB unpacked, found 0\.0 GB; save it uncompressed by numpy\.savez"
    )
    with pytest.raises(ValueError, match=expected):
        rows(path)
    assert rows(write_npz(tmp_path / "b.npz", npy((3, 1000, 1000), b"\0" * 3_000_000), zipfile.ZIP_STORED)) == 3


@METHODS
def test_encrypted_and_unknown_members_are_refused(tmp_path: Path, method: int) -> None:
    for number, (offset, change) in enumerate({6: 1, 8: 97}.items()):  # flags, method of compression
        path = write_npz(tmp_path / f"{number}.npz", npy((3, 8, 8), b"\0" * 192), method)
        raw = bytearray(path.read_bytes())
        for mark, place in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
            start = raw.find(mark)
            while start >= 0:
                raw[start + place] |= change
                start = raw.find(mark, start + 4)
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"corrupted, or not an archive of numbers \(.*(encrypted|not supported)"):
            rows(path)


# --------------------------------------------------------------------------------------------- images


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, *extra: bytes, rows: int = 0) -> bytes:
    """Return a black PNG of `side` x `side` pixels of one bit, of which `rows` are there."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side // 8 + 1) * rows, 9)
    parts = (chunk(b"IHDR", head), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side))
    with pytest.raises(
        ValueError, match=r"sample k: corrupted or not an image: .*a\.png \(Image size .* exceeds limit"
    ):
        read_image("k", str(tmp_path / "a.png"))


def test_a_text_in_an_image_is_not_unpacked_without_limit(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000, 9))
    (tmp_path / "a.png").write_bytes(png(8, bomb, rows=8))
    with pytest.raises(
        ValueError, match=r"sample k: corrupted or not an image: .*a\.png \(Decompressed data too large"
    ):
        read_image("k", str(tmp_path / "a.png"))
    (tmp_path / "b.png").write_bytes(png(8, rows=8))
    assert np.asarray(read_image("k", str(tmp_path / "b.png")).image).shape == (8, 8)


# ------------------------------------------------------------------------------------------- weights


class Zeros:
    """A pickle of a few bytes that stands for `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> tuple[type[bytearray], tuple[int]]:
        return bytearray, (self.size,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bytearray_by_its_length_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": Zeros(10**12)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"file .*w\.pt: expected tensors, found a bytearray"):
        read_states(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bytearray_in_a_plain_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": Zeros(10**12)}, protocol=protocol))
    with pytest.raises(ValueError, match=r"file .*w\.pt: expected tensors, found a bytearray"):
        read_states(str(tmp_path / "w.pt"))


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "w.pt")
    assert read_states(str(tmp_path / "w.pt"))[0].state["a"].shape == (10**6,)
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert (tmp_path / "b.pt").stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"file .*b\.pt: expected records of torch\.save, found compressed ones"):
        read_states(str(tmp_path / "b.pt"))


def test_an_expanded_tensor_takes_its_own_bytes_only(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pt")
    assert read_states(str(tmp_path / "w.pt"))[0].state["a"].untyped_storage().nbytes() == 4


@pytest.mark.parametrize("length", [2**63 - 1, 10**9, 2**64 - 1])
def test_a_safetensors_header_of_any_length_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "w.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=r"file .*w\.safetensors is corrupted or not in safetensors format"):
        read_states(str(tmp_path / "w.safetensors"))
    with pytest.raises(DamagedError, match="it: expected a safetensors file"):
        decode_tensors(length.to_bytes(8, "little") + b"{}", "it")


# ------------------------------------------------------------------------------- documents of a store


def tensors_file(header: bytes) -> bytes:
    """Return a safetensors file of one float32 with any header."""
    return len(header).to_bytes(8, "little") + header + b"\0" * 4


@pytest.mark.parametrize(
    "entry",
    [
        *({"shape": [2]}, {"shape": [-1]}, {"shape": ["x"]}, {"shape": [10**30]}, {"shape": [True]}, {"shape": 1}),
        *({"dtype": "F64"}, {"dtype": "X"}, {"dtype": ["F32"]}, {"dtype": None}),
        *({"data_offsets": [0, 10**30]}, {"data_offsets": [-4, 0]}, {"data_offsets": [0.0, 4.0]}, {"data_offsets": []}),
    ],
    ids=str,
)
def test_a_tensor_that_is_not_what_its_header_says_is_damage(entry: dict[str, object]) -> None:
    sound = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    assert decode_tensors(tensors_file(json.dumps({"a": sound}).encode()), "it")[0]["a"].data.nbytes == 4
    with pytest.raises(DamagedError, match=r"^it: expected a safetensors file"):
        decode_tensors(tensors_file(json.dumps({"a": {**sound, **entry}}).encode()), "it")


@pytest.mark.parametrize("header", [b'{"a":' + b"[" * 100_000, b'{"__metadata__": [1]}', b"[]", b"NaN", b"\xff"])
def test_a_header_that_is_no_header_is_damage(header: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^it: expected a safetensors file"):
        decode_tensors(tensors_file(header), "it")


def test_a_document_of_any_depth_or_number_is_damage_not_a_crash() -> None:
    for inner in (*(b"[" * n + b"]" * n for n in range(900, 1010, 3)), b"9" * 5000, b"[" * 100_000):
        with pytest.raises(DamagedError, match=r"^it: "):
            decode(b'{"a":' + inner + b',"sha256":"x"}', "it")


# --------------------------------------------------------------------------------------- memory, for real

BOMBS: dict[str, Callable[[Path], Path]] = {
    "npz": lambda folder: write_npz(folder / "a.npz", npy((10**5, 1000, 60), b"\0" * 100), zipfile.ZIP_DEFLATED),
    "pt": lambda folder: _written(folder / "w.pt", pickle.dumps({"a": Zeros(6 * 10**9)}, protocol=2)),
    "png": lambda folder: _written(folder / "a.png", png(60_000, rows=60_000)),
    "yaml": lambda folder: _written(folder / "a.yaml", b"seeds: &a [0]\n" + b"a: &b [*a, *a]\n" * 3 + _laughs()),
}
READ = """
import resource, sys
from tasks.io.decoding import read_image
from tasks.io.npz import read_member
from tasks.io.weights import read_states
from configs.load import load_config
read = {"npz": lambda p: read_member(p, "images"), "pt": read_states, "yaml": load_config}
read["png"] = lambda p: read_image("k", p)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read[sys.argv[1]](sys.argv[2])
except Exception as error:
    print(type(error).__name__, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def _written(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path


def _laughs() -> bytes:
    """Return ten levels of nine aliases each."""
    levels = zip("cdefghijk", "defghijkl", strict=True)
    return b"c: &c [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in levels).encode()


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_takes_no_memory_to_refuse(tmp_path: Path, kind: str) -> None:
    path = BOMBS[kind](tmp_path)
    assert path.stat().st_size < 2_000_000
    command = [sys.executable, "-c", READ, kind, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    error, megabytes = result.stdout.split()
    assert error in ("ValueError", "ConfigError")
    assert int(megabytes) < 300, result.stdout
