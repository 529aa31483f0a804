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
        ("image,label\n", {}, r"csv .*t.csv: expected a column 'path', found image, label"),
        ("", {}, r"csv .*t.csv: expected a column 'path', found none"),
        ("path,label\nval/cat/0.png,0\nnone.png,1\n", {}, r"csv .*t.csv, line 3: file .*none.png does not exist"),
        (
            "path,label\nval/cat/0.png,cat\n",
            {},
            r"line 2: expected an integer as label, found 'cat'; map names by `classes`",
        ),
        (
            "path,label\nval/cat/0.png,owl\n",
            {"classes": {"cat": 0}},
            r"line 2: expected a label of `classes`, found 'owl'",
        ),
        ("path,label\nval/cat/0.png\n", {}, r"line 2: expected a label, found none"),
        ("path,label\n,3\n", {}, r"line 2: expected a path, found none"),
    ],
)
def test_bad_tables_are_named_by_line(folders: Path, text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(table(folders / "t.csv", text, **settings).rows())


def test_missing_and_binary_tables_are_errors(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in {"t.csv": ", line 1: expected UTF-8 text", "none.csv": " does not exist"}.items():
        data = Csv.model_validate({"source": "csv", "paths": {"train": str(tmp_path / name)}})
        with pytest.raises(ValueError, match=rf"csv.* .*{name}{message}"):
            list(TableSource(data).rows())


ROW = "path,label\nval/cat/0.png,0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\rval/cat/0.png,0\r", r"line 1: a carriage return without a line feed; save the table with LF"),
        (f"{ROW}val/cat/0.png,0\r0\n", r"line 3: a carriage return without a line feed"),
        ('path,label\nval/cat/0.png,0\n"val/cat/0.png,0\n', r"line 3: expected a row of a table, .*; close each quote"),
        ('path,label,note\nval/cat/0.png,0,"a\nb"\n"val/dog/0.png,1,c\n', r"line 4: expected a row of a table"),
        (f'{ROW}"{"x" * 200_000}\n', r"line 3: expected a row of a table, .*limit"),
        ("path,label\nval/cat/0.png,\0\n", r"line 2: a NUL character"),
        (f"{ROW}{'x' * 5000}.png,0\n", r"line 3: file .*x.png has a path that is too long"),
        (f"{ROW}{'y/' * 3000}.png,0\n", r"line 3: file .*png has a path that is too long"),
        (f"{ROW}val/cat/0.png/1.png,0\n", r"line 3: file .*val/cat/0.png/1.png lies below a file, not a folder"),
        (f"{ROW}nosuch://a/b.png,0\n", r"line 3: path: .*nosuch"),
        (f"{ROW}s3://user:word@host/b.png,0\n", r"line 3: path: expected no secret, found a URL with a password in it"),
        (f"{ROW}val/cat,0\n", r"line 3: file .*val/cat is a folder, not a file"),
        (f"{ROW}a,b.png,3\n", r"line 3: expected 2 cells, as in the header, found 3; quote cells that hold a comma"),
        ("path,label,label\nval/cat/0.png,0,1\n", r"line 1: expected one column 'label', found two"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_by_line(folders: Path, text: str, message: str) -> None:
    source = table(folders / "t.csv", "")
    (folders / "t.csv").write_bytes(text.encode())
    with pytest.raises(ValueError, match=rf"^csv .*t\.csv, {message}"):
        list(source.rows())


def test_a_link_that_leads_to_itself_is_named(folders: Path) -> None:
    (folders / "loop.png").symlink_to(folders / "loop.png")
    with pytest.raises(ValueError, match=r"line 3: file .*loop.png is a link that leads to itself"):
        list(table(folders / "t.csv", f"{ROW}loop.png,0\n").rows())


@pytest.mark.parametrize("label", ["0_1", " 1", "1 ", "+1", "-1", "1.0", "1e2", "0x1", "١", "１", "²", "True", "\t1"])
def test_a_label_is_an_integer_in_plain_decimal_digits_only(folders: Path, label: str) -> None:
    with pytest.raises(ValueError, match=r"line 3: expected an integer as label, found .*; map names by `classes`"):
        list(table(folders / "t.csv", f"{ROW}val/cat/0.png,{label}\n").rows())
    mapped = table(folders / "t.csv", f"path,label\nval/cat/0.png,{label}\n", classes={label: 3})
    assert [row.label for row in mapped.rows()] == [3]


@pytest.mark.parametrize(("label", "index"), [("0", 0), ("007", 7), (str(2**63 - 1), 2**63 - 1), ("0" * 5000 + "1", 1)])
def test_plain_decimal_labels_are_taken_up_to_int64(folders: Path, label: str, index: int) -> None:
    assert [row.label for row in table(folders / "t.csv", f"path,label\nval/cat/0.png,{label}\n").rows()] == [index]


@pytest.mark.parametrize("label", [str(2**63), "9" * 20, "9" * 5000])
def test_a_label_beyond_int64_is_named_by_line(folders: Path, label: str) -> None:
    with pytest.raises(ValueError, match=rf"t.csv, line 3: expected a label up to {2**63 - 1}, .* found 9") as caught:
        list(table(folders / "t.csv", f"{ROW}val/cat/0.png,{label}\n").rows())
    assert len(str(caught.value)) < 400


def test_other_line_ends_quotes_and_empty_lines_are_taken(folders: Path) -> None:
    source = table(folders / "t.csv", "")
    text = '\ufeffpath,label,note\r\n\r\n"val/cat/0.png",0,"two\r\nlines, ""quoted"""\r\nval/dog/0.png,1,\r\n'
    (folders / "t.csv").write_bytes(text.encode())
    assert [(row.key, row.label) for row in source.rows()] == [("train/val/cat/0.png", 0), ("train/val/dog/0.png", 1)]
    (folders / "t.csv").write_bytes(text.replace("dog/0", "dog/9").encode())
    with pytest.raises(ValueError, match=r"line 5: file .*dog/9.png does not exist"):
        list(source.rows())


def test_a_class_name_is_the_same_in_either_unicode_form(folders: Path) -> None:
    source = table(folders / "t.csv", "path,label\nval/cat/0.png,cafe\u0301\n", classes={"caf\u00e9": 5})
    assert [row.label for row in source.rows()] == [5]


def test_the_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\na.png,0\ncaf\xe9.png,0\n")
    data = Csv.model_validate({"source": "csv", "paths": {"train": str(tmp_path / "t.csv")}})
    with pytest.raises(ValueError, match=r"csv .*t.csv, line 3: expected UTF-8 text"):
        list(TableSource(data).rows())
