"""Tests of `tasks.io.broden` and its tables."""

import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from configs.schema import Broden
from tasks.io.annotations import annotations_of, coverage
from tasks.io.broden import BrodenSource
from tasks.io.digests import source_digest
from tasks.io.manifest import read_manifest
from tests.tasks.io.broden_folder import TABLES, masks, save_mask, write_broden


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_broden(tmp_path / "broden")


def test_rows_and_images_follow_the_index(root: Path) -> None:
    table = read_manifest(Broden(source="broden", root=str(root)))
    assert table["key"].tolist() == ["train/a/1.png", "train/a/2.png", "val/b/3.png", "val/b/4.png"]
    assert table["split"].tolist() == ["train", "train", "val", "val"]
    assert set(table["label_given"]) == {0}
    source = BrodenSource(str(root), threads=2)
    levels = [int(np.asarray(sample.image)[0, 0, 0]) for sample in source.read(table["key"].tolist()[::-1])]
    assert levels == [30, 20, 10, 0]


def test_a_label_of_two_categories_has_a_number_for_each(root: Path) -> None:
    vocabulary = annotations_of(BrodenSource(str(root))).vocabulary()
    named = [vocabulary.categories[i] for i in vocabulary.category_of[1:]]
    assert list(zip(vocabulary.names[1:], named, strict=True)) == [
        ("red-c", "color"),
        ("car", "object"),
        ("water, sea", "object"),
        ("water, sea", "material"),
        ("wood", "material"),
        ("wheel", "part"),
    ]


def test_masks_by_hand(root: Path) -> None:
    found = BrodenSource(str(root)).masks(["val/b/3.png", "train/a/1.png", "train/a/2.png"])
    assert found.shape == (3, 6, 4, 6)  # color, object, material twice, part twice
    files = masks()
    expected = np.zeros_like(found)
    expected[0, 2], expected[0, 3] = 5, 4  # wood and water, of the whole image
    expected[1, 0] = 1
    expected[1, 1] = np.where(files["a/1_object"] == 2, 2, 0)
    expected[1, 4], expected[1, 5] = (np.where(files[name] == 7, 6, 0) for name in ("a/1_part", "a/1_part2"))
    expected[2, 1] = np.where(files["a/2_object"] == 300, 3, 0)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(coverage(found, 7)[1], [0, 1, 0.5, 0, 0, 0, 2 / 24])


def test_the_digest_follows_tables_and_files(root: Path, tmp_path: Path) -> None:
    data = Broden(source="broden", root=str(root))
    first = source_digest(data)
    assert set(first) == {*TABLES, "images"}
    (root / "c_part.csv").write_text(TABLES["c_part.csv"] + "\n")
    second = source_digest(data)
    assert [name for name in first if first[name] != second[name]] == ["c_part.csv"]
    (root / "images" / "a" / "more.png").write_bytes(b"1")
    assert source_digest(data)["images"] != first["images"]
    root.rename(tmp_path / "moved")
    (tmp_path / "moved" / "images" / "a" / "more.png").unlink()
    assert source_digest(Broden(source="broden", root=str(tmp_path / "moved"))) == second


def test_a_remote_folder_is_read(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in (file for file in root.rglob("*") if file.is_file()):
        memory.pipe(f"/broden-test/{path.relative_to(root).as_posix()}", path.read_bytes())
    local, remote = BrodenSource(str(root)), BrodenSource("memory://broden-test")
    keys = [row.key for row in remote.rows()]
    assert keys == [row.key for row in local.rows()]
    np.testing.assert_array_equal(remote.masks(keys), local.masks(keys))


@pytest.mark.parametrize(
    ("table", "before", "after", "message"),
    [
        ("index.csv", ",5;300,", ",6,", r"index.csv, row 3: material: expected label numbers .* found 6; add"),
        ("index.csv", ",5;300,", ",2,", r"index.csv, row 3: material: expected label numbers .* found 2; add"),
        ("index.csv", ",5;300,", ",99999,", r"row 3: material: expected label numbers .* found 99999"),
        ("index.csv", "a/1_part2.png", "a/none.png", r"index.csv, row 1: file .*images/a/none.png does not exist"),
        ("index.csv", "b/4.png", "b/5.png", r"index.csv, row 4: file .*images/b/5.png does not exist"),
        (
            "index.csv",
            "b/4.png,val,8,12,4,6",
            "b/4.png,val,8,12,4,7",
            r"row 4: expected masks .*\(4, 6\), found \(4, 7\)",
        ),
        ("index.csv", "b/4.png,val,8,12,4", "b/4.png,val,8,12,x", r"row 4: expected a number .* found 'x'"),
        ("index.csv", ",material,", ",texture,", r"index.csv: expected a column 'material', found image, split"),
        ("index.csv", "b/4.png,val", "b/4.png,", r"row 4: expected an image and a split, found 'b/4.png' and ''"),
        ("label.csv", "7,wheel", "5,wheel", r"label.csv, row 5: expected a new label number from 1, found 5 again"),
        ("label.csv", "part(1)", "piece(1)", r"label.csv, row 5: expected a category of category.csv, found 'piece'"),
        ("c_part.csv", "1,7,", "1,8,", r"c_part.csv, row 1: expected a label number of label.csv, found 8"),
    ],
)
def test_a_bad_table_is_named_with_its_row(root: Path, table: str, before: str, after: str, message: str) -> None:
    assert before in TABLES[table]
    (root / table).write_text(TABLES[table].replace(before, after, 1))
    with pytest.raises(ValueError, match=message) as caught:
        list(BrodenSource(str(root)).rows())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", [name for name in TABLES if name != "c_part.csv"])
def test_a_missing_table_is_named(root: Path, table: str) -> None:
    (root / table).unlink()
    with pytest.raises(ValueError, match=f"file .*{table} does not exist"):
        source_digest(Broden(source="broden", root=str(root)))


def test_an_empty_index_is_named(root: Path) -> None:
    (root / "index.csv").write_text(TABLES["index.csv"].splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"index.csv: expected images, found none"):
        list(BrodenSource(str(root)).rows())


def test_bad_masks_are_named_with_file_and_row(root: Path) -> None:
    path, source = root / "images" / "a" / "2_object.png", BrodenSource(str(root))
    save_mask(path, np.full((4, 6), 9))
    with pytest.raises(ValueError, match=r"index.csv, row 2: mask a/2_object.png: object: expected .* found 9; add"):
        source.masks(["train/a/2.png"])
    save_mask(path, np.full((4, 7), 2))
    with pytest.raises(ValueError, match=r"row 2: mask a/2_object.png: expected 4 x 6 pixels, .* found 4 x 7"):
        source.masks(["train/a/2.png"])
    with pytest.raises(ValueError, match=r"sample train/none.png: expected a row in index.csv, .* found none"):
        source.masks(["train/none.png"])
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"2_object.png"):
        source.masks(["train/a/2.png"])


def test_the_real_set_is_read(data_dir: Path, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        with zipfile.ZipFile(data_dir / "broden_real" / f"{name}.zip") as archive:
            archive.extractall(tmp_path)
    source = BrodenSource(str(tmp_path), threads=2)
    rows = list(source.rows())
    assert [sum(row.split == split for row in rows) for split in ("train", "val")] == [1905, 816]
    vocabulary = source.vocabulary()
    counts = np.bincount(vocabulary.category_of[1:], minlength=6).tolist()
    assert dict(zip(vocabulary.categories, counts, strict=True)) == {
        **{"color": 11, "object": 60, "part": 22},
        **{"material": 10, "scene": 30, "texture": 10},
    }
    masks = source.masks([row.key for row in rows[:300]])
    assert masks.shape == (300, 6, 112, 112)
