"""Tests of `tasks.io.files`."""

import os
from pathlib import Path

import fsspec
import pytest

from tasks.io.files import File, join, list_files, list_folders, local_path, look_up, read_bytes, remote_file, resolved


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with three files, two of them below others, and a hidden one."""
    for name, content in {"b.txt": "22", "a/x.txt": "1", "a/deep/y.txt": "333", ".hidden": "", "a/.also": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_local_listing_is_sorted_and_recursive_and_leaves_hidden_files_out(tree: Path) -> None:
    files = list_files(str(tree))
    assert [(file.path, file.size) for file in files] == [("a/deep/y.txt", 3), ("a/x.txt", 1), ("b.txt", 2)]
    assert list_files(f"file://{tree}") == files
    assert list_folders(str(tree)) == ["a"]


def test_local_etag_follows_size_and_time(tree: Path) -> None:
    before = look_up(str(tree / "b.txt"))
    os.utime(tree / "b.txt", ns=(5, 7))
    after = look_up(str(tree / "b.txt"))
    assert (before.size, after.etag) == (2, "2-7")
    assert before.etag != after.etag


def test_remote_listing_equals_the_local_one() -> None:
    system = fsspec.filesystem("memory")
    system.pipe({"/files-test/b.txt": b"22", "/files-test/a/x.txt": b"1"})
    files = list_files("memory://files-test")
    assert [(file.path, file.size) for file in files] == [("a/x.txt", 1), ("b.txt", 2)]
    assert read_bytes("memory://files-test/a/x.txt") == b"1"
    assert look_up("memory://files-test/b.txt")[:2] == ("memory://files-test/b.txt", 2)
    assert list_folders("memory://files-test") == []


def test_remote_etag_is_the_stores_own_without_quotes() -> None:
    assert remote_file("x", {"size": 3, "ETag": '"abc"'}) == File("x", 3, "abc")
    assert remote_file("x", {"size": None, "mtime": 7.5}) == File("x", 0, "0-7.5")


def test_a_missing_folder_is_an_error(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"folder .*/none: does not exist"):
        list_files(str(tree / "none"))
    with pytest.raises(ValueError, match=r"folder .*/b.txt: expected a folder, found a file"):
        list_files(str(tree / "b.txt"))
    with pytest.raises(ValueError, match=r"folder memory://files-none: expected a folder, found nothing"):
        list_files("memory://files-none")


def test_paths_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("s3://bucket/x") is None
    assert local_path("file:///a/b") == Path("/a/b")
    assert resolved("data") == str(tmp_path / "data")
    assert resolved("s3://bucket/x/") == "s3://bucket/x"
    assert join("s3://bucket/x/", "a.png") == "s3://bucket/x/a.png"
    assert join("", "a.png") == "a.png"
    assert join("root", "/a.png") == "/a.png"
    assert join("root", "s3://b/a.png") == "s3://b/a.png"
    assert join("/", "a.png") == "/a.png"
