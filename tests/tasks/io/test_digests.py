"""Tests of `tasks.io.digests` and `configs.imports`."""

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import TypeAdapter

from configs.imports import code_digest
from configs.schema import AnyDataSet
from tasks.io.digests import file_sha256, folder_digest, source_digest

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc", FIPS 180-2


def digest(source: str, **settings: Any) -> dict[str, str]:
    """Return the digest of a data set."""
    return source_digest(TypeAdapter[AnyDataSet](AnyDataSet).validate_python({"source": source, **settings}))


def test_local_data_counts_by_content_and_remote_folders_by_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.npz", "sub/moved.npz", "t.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    assert digest("sklearn-digits") == {}
    assert digest("npz", paths={"train": "a.npz"}) == {"paths.train.0": ABC}
    assert digest("npz", paths={"train": ["sub/moved.npz", "a.npz"]}) == {"paths.train.0": ABC, "paths.train.1": ABC}
    assert digest("csv", paths={"val": "t.csv"}, root="s3://b/x/") == {"paths.val": ABC, "root.val": "s3://b/x"}
    assert digest("csv", paths={"val": "t.csv"}) == {"paths.val": ABC, "root.val": str(tmp_path)}
    listing = f"listing:{hashlib.sha256(b'moved.npz' + bytes(1) + b'3' + bytes(1)).hexdigest()}"
    found = digest("image-folder", paths={"train": "sub", "val": "memory://v"})
    assert found == {"paths.train": listing, "paths.val": "memory://v"}
    (tmp_path / "sub").rename(tmp_path / "elsewhere")
    assert digest("image-folder", paths={"train": "elsewhere"}) == {"paths.train": listing}
    (tmp_path / "elsewhere" / "more.npz").write_bytes(b"")
    assert digest("image-folder", paths={"train": "elsewhere"}) != {"paths.train": listing}
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split).mkdir(parents=True)
        (tmp_path / "imagenet" / split / "moved.npz").write_bytes(b"abc")
    assert digest("imagenet", root="imagenet/") == {"root.train": listing, "root.val": listing}


def test_imported_code_counts_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_digested.py").write_text("def source(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    expected = f"sha256:{hashlib.sha256(b'def source(): ...' + bytes([10])).hexdigest()}"
    assert digest("import", object="own_digested:source") == {"object": expected}
    assert code_digest("own_digested:other") == expected


@pytest.mark.parametrize("path", ["no_such_module:f", "no_such_package.module:f", "sys:exit"])
def test_code_without_a_file_is_named(path: str) -> None:
    with pytest.raises(ValueError, match=f"import path '{path}'"):
        code_digest(path)


def test_files_are_digested_again_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_sha256(str(path)) == ABC
    path.write_bytes(b"abcd")
    assert file_sha256(str(path)) != ABC


def test_remote_and_missing_files() -> None:
    fsspec.filesystem("memory").pipe("/digest-test/a", b"abc")
    assert file_sha256("memory://digest-test/a") == ABC
    for url in ("memory://digest-test/none", "/no/such/file"):
        with pytest.raises(ValueError, match=f"file {url} does not exist"):
            file_sha256(url)


def test_a_folders_digest_says_which_files_of_other_endings_are_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"1234")
    (tmp_path / "cat" / "note").write_bytes(b"5678")
    usual = "cat/a.png\0" + "4\0" + "cat/note\0" + "4\0"
    assert folder_digest(str(tmp_path)) == f"listing:{hashlib.sha256(usual.encode()).hexdigest()}"
    (tmp_path / "cat" / "note").write_bytes(b"P5 1 1 255 x")  # a grey image of one pixel
    image = "cat/a.png\0" + "4\0" + "cat/note\0" + "12\0image\0"
    assert folder_digest(str(tmp_path)) == f"listing:{hashlib.sha256(image.encode()).hexdigest()}"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for name, why in {
        "a/b": "lies below a file",
        "n" * 300: "too long",
        "n/" * 3000: "too long",
        ".": "is a folder",
    }.items():
        with pytest.raises(ValueError, match=f"file .* {why}") as caught:
            file_sha256(str(tmp_path / name))
        assert len(str(caught.value)) < 400
