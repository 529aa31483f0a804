"""Tests of `tasks.io.table`."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

from configs.schema import Csv
from tasks.io.samples import mode_of
from tasks.io.table import TableSource


def table(path: Path, text: str, **settings: Any) -> TableSource:
    """Write a table and open it as split train."""
    path.write_text(text)
    return TableSource(Csv.model_validate({"source": "csv", "paths": {"train": str(path)}, **settings}))


def test_rows_keep_the_tables_order_and_paths_are_relative_to_it(folders: Path) -> None:
    source = table(folders / "t.csv", "path,label\ntrain/dog/1.png,4\ntrain/cat/0.png,0\n")
    rows = list(source.rows())
    assert [(row.key, row.label) for row in rows] == [("train/train/dog/1.png", 4), ("train/train/cat/0.png", 0)]
    assert rows[0].size == (folders / "train/dog/1.png").stat().st_size
    assert mode_of(source.read([rows[1].key])[0].image) == "RGB"
    assert source.class_names() == {}


def test_columns_root_and_classes(folders: Path) -> None:
    text = "\ufefffile,species,more\n0.png,dog,x\n1.png,dog,y\n"
    source = table(
        folders / "t.csv",
        text,
        root=str(folders / "train" / "dog"),
        path_column="file",
        label_column="species",
        classes={"dog": 7},
    )
    assert [(row.key, row.label) for row in source.rows()] == [("train/0.png", 7), ("train/1.png", 7)]
    assert source.class_names() == {7: "dog"}


def test_absolute_paths_stand_for_themselves(folders: Path, tmp_path: Path) -> None:
    image = folders / "val/cat/0.png"
    source = table(tmp_path / "t.csv", f"path,label\n{image},0\n")
    assert mode_of(source.read([next(iter(source.rows())).key])[0].image) == "RGB"


def test_a_remote_root_is_listed_once(folders: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/table-test/a/0.png", (folders / "val/cat/0.png").read_bytes())
    source = table(tmp_path / "t.csv", "path,label\na/0.png,3\n", root="memory://table-test")
    (row,) = source.rows()
    assert (row.key, row.label, row.size) == ("train/a/0.png", 3, (folders / "val/cat/0.png").stat().st_size)
    assert mode_of(source.read([row.key])[0].image) == "RGB"


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("image,label\n", {}, r"csv .*t.csv: no column 'path'; columns: image, label"),
        ("", {}, r"csv .*t.csv: no column 'path'; columns: none"),
        ("path,label\nval/cat/0.png,0\nnone.png,1\n", {}, r"csv .*t.csv, line 3: file .*none.png does not exist"),
        ("path,label\nval/cat/0.png,cat\n", {}, r"line 2: label 'cat' is not an integer; map names by `classes`"),
        ("path,label\nval/cat/0.png,owl\n", {"classes": {"cat": 0}}, r"line 2: label 'owl' is not in `classes`"),
        ("path,label\nval/cat/0.png\n", {}, r"line 2: no label"),
        ("path,label\n,3\n", {}, r"line 2: no path"),
    ],
)
def test_bad_tables_are_named_by_line(folders: Path, text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(table(folders / "t.csv", text, **settings).rows())


def test_missing_and_binary_tables_are_errors(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in {"t.csv": "is not UTF-8 text", "none.csv": "does not exist"}.items():
        data = Csv.model_validate({"source": "csv", "paths": {"train": str(tmp_path / name)}})
        with pytest.raises(ValueError, match=rf"csv: file .*{name} {message}"):
            list(TableSource(data).rows())
