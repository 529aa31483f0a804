"""Regions with captions from files and from drawings, and the files of captioners."""

import io
import sys
import types
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.io.captioner_files import read_captioner
from tasks.io.drawing.labels import NUMBERS, PAIRS
from tasks.io.drawn_regions import DRAWINGS, DrawnRegions, described
from tasks.io.mini_broden import draw
from tasks.io.regions import RegionFiles

HEADER = "image,mask,text,photo\n"


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def files() -> dict[str, bytes]:
    """Return the files of two regions of one image, and one of another."""
    image = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    mask = np.zeros((8, 10), np.uint8)
    mask[2:4, 3:6] = 255
    rows = 'a.png,m.png,"Red, round ball",p1\na.png,n.png,blue sky,p1\nb.png,m.png,a ball,p2\n'
    return {
        "regions.csv": (HEADER + rows).encode(),
        "a.png": png(image),
        "b.png": png(image[::-1].copy()),
        "m.png": png(mask),
        "n.png": png(255 - mask),
    }


def write_folder(place: Path, content: dict[str, bytes]) -> str:
    for name, raw in content.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(raw)
    return str(place)


def write_archive(place: Path, content: dict[str, bytes]) -> str:
    place.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place / "regions.zip", "w") as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)
    return str(place / "regions.zip")


WRITERS = [write_folder, write_archive]
Writer = Callable[[Path, dict[str, bytes]], str]


@pytest.mark.parametrize("write", WRITERS)
def test_a_folder_and_an_archive_give_the_same_regions(write: Writer, tmp_path: Path) -> None:
    source = RegionFiles(write(tmp_path, files()), "photo")
    source.check()
    rows = source.regions()
    assert [row.caption for row in rows] == ["Red, round ball", "blue sky", "a ball"]
    assert [row.origin for row in rows] == ["p1", "p1", "p2"]
    assert [row.origin for row in RegionFiles(source.path).regions()] == ["a.png", "a.png", "b.png"]
    np.testing.assert_array_equal(source.image("a.png"), np.arange(240, dtype=np.uint8).reshape(8, 10, 3))
    expected = np.zeros((8, 10), bool)
    expected[2:4, 3:6] = True
    np.testing.assert_array_equal(source.mask(rows[0]), expected)
    np.testing.assert_array_equal(source.mask(rows[1]), ~expected)


BAD: list[tuple[dict[str, bytes], str]] = [
    ({"regions.csv": b"image,mask\na.png,m.png\n"}, "mask, text, photo, found none called 'text'"),
    ({"regions.csv": HEADER.encode()}, "expected rows, found none; add regions"),
    ({"regions.csv": (HEADER + "a.png,m.png,ball,p\na.png,m.png,...,p\n").encode()}, "row 3: expected words as text"),
    ({"regions.csv": (HEADER + "a.png,m.png,,p\n").encode()}, "row 2: expected words as text, found ''"),
    ({"regions.csv": (HEADER + "a.png\n").encode()}, "row 2: expected a file as mask, found none"),
    ({"regions.csv": (HEADER + "z.png,m.png,ball,p\n").encode()}, "file z.png does not exist"),
    ({"regions.csv": (HEADER + "a.png,z.png,ball,p\n").encode()}, "file z.png does not exist"),
    ({"regions.csv": (HEADER + "../a.png,m.png,ball,p\n").encode()}, "expected a path below it, found '../a.png'"),
    ({"regions.csv": b"\xff\xfe"}, "expected UTF-8 text, found other bytes"),
    ({"m.png": png(np.zeros((8, 10), np.uint8))}, "row 2: expected a region, found mask m.png empty; remove the row"),
    ({"m.png": png(np.ones((4, 10), np.uint8))}, "m.png of the image's size (8, 10), found (4, 10)"),
    ({"a.png": b"not an image"}, "corrupted or not an image"),
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("changed", "expected"), BAD)
def test_bad_regions_are_one_line(write: Writer, changed: dict[str, bytes], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        RegionFiles(write(tmp_path, files() | changed), "photo").check()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_damaged_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regions .*absent\.zip does not exist"):
        RegionFiles(str(tmp_path / "absent.zip")).regions()
    with pytest.raises(ValueError, match=r"regions .*: file regions\.csv does not exist"):
        RegionFiles(str(tmp_path / "absent")).regions()
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(ValueError, match="expected a zip archive, found another file"):
        RegionFiles(str(tmp_path / "text.zip")).regions()
    place = Path(write_archive(tmp_path / "flipped", files()))
    raw = bytearray(place.read_bytes())
    (first, second) = (raw.index(b"IDAT") + 8, raw.rindex(b"IDAT") + 8)
    raw[first] ^= 1
    raw[second] ^= 1
    place.write_bytes(raw)
    with pytest.raises(ValueError, match=r"regions .*flipped/regions\.zip: file .* is damaged or encrypted \(Bad CRC"):
        RegionFiles(str(place)).check()
    table = files()["regions.csv"] + b"\0"
    with pytest.raises(ValueError, match=r"regions\.csv"):
        RegionFiles(write_archive(tmp_path / "odd", {**files(), "regions.csv": table})).check()
    with pytest.raises(ValueError, match=r"expected a local folder or \.zip, found a URL"):
        RegionFiles("s3://bucket/regions").regions()


def test_drawn_captions_say_what_most_pixels_are() -> None:
    source = DrawnRegions(30, 48, 5)
    found = Counter(row.caption.split()[0] for row in source.regions())
    assert len(found) > 30
    for row in source.regions()[:200]:
        image, planes = draw(DRAWINGS + 5, int(row.image), 48)
        name = PAIRS[int(row.mask) - 1][0]
        mask = source.mask(row)
        np.testing.assert_array_equal(source.image(row.image), image)
        np.testing.assert_array_equal(mask, (planes == int(row.mask)).any(axis=0))
        assert name in row.caption
        if row.caption != name:
            rest = [word for word in row.caption.split() if word not in {name, "of"}]
            for word in rest:  # each other word covers most of the region
                numbers = [number for pair, number in NUMBERS.items() if pair[0] == word]
                assert max(((planes == number).any(axis=0) & mask).sum() for number in numbers) > 0.6 * mask.sum()


def test_a_part_is_of_its_object_and_a_scene_is_alone() -> None:
    planes = np.zeros((6, 4, 4), np.int32)
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    planes[0] = NUMBERS["car", "object"]
    planes[1][mask] = NUMBERS["wheel", "part"]
    planes[2] = NUMBERS["beach", "scene"]
    planes[5][mask] = NUMBERS["black", "color"]
    assert described(planes, mask, NUMBERS["wheel", "part"]) == "black wheel of car"
    assert described(planes, planes[2] > 0, NUMBERS["beach", "scene"]) == "beach"
    assert described(planes, planes[0] > 0, NUMBERS["car", "object"]) == "car"  # black covers a quarter only


def published(words: object) -> dict[str, object]:
    """Return the content of a published file."""
    tokens = {"properties": {"vocab": {"properties": {"tokens": words}}}}
    return {"properties": {"indexer": tokens}, "children": {}, "state_dict": {"output.1.bias": torch.zeros(2)}}


def test_a_published_file_is_read_without_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("thinc.config")

    class Config(dict[str, object]):
        """Settings of a tokenizer, as spacy has them."""

        def __init__(self, values: dict[str, object]) -> None:
            super().__init__(values)
            self.is_interpolated = True

    Config.__module__, Config.__qualname__ = "thinc.config", "Config"
    module.Config = Config  # type: ignore[attr-defined]  # a stand-in for spacy's own
    content = published(("ball", "red"))
    content["tokenize"] = (Config({"nlp": {"lang": "en"}}), b"bytes")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "thinc", types.ModuleType("thinc"))
        patch.setitem(sys.modules, "thinc.config", module)
        torch.save(content, tmp_path / "milan.pth")
    found = read_captioner(str(tmp_path / "milan.pth"))
    assert found.words == ("ball", "red")
    assert list(found.tensors) == ["output.1.bias"]


def test_bad_captioner_files_are_one_line(tmp_path: Path) -> None:
    torch.save(published(("ball", 3)), tmp_path / "words.pth")
    torch.save({"state_dict": {"a": 3}}, tmp_path / "values.pth")
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    (tmp_path / "text.pth").write_text("text")
    for name, expected in (
        ("words.pth", "expected words as `tokens` of its vocabulary"),
        ("values.pth", "expected tensors by name in `state_dict`"),
        ("tensor.pth", "expected tensors by name in `state_dict`"),
        ("text.pth", "is corrupted or holds more than tensors"),
        ("absent.pth", "does not exist"),
    ):
        with pytest.raises(ValueError, match=r".") as error:
            read_captioner(str(tmp_path / name))
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
