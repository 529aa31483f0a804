"""Names and paths that lead elsewhere: refused where they name something of ours, and never written through."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from configs.load import ConfigError, load_config, presets
from configs.schema import Csv, ImageFolder
from flows import cli, exits
from tasks.io.folder import FolderSource
from tasks.io.table import TableSource

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

BAD = [
    "../x",
    "..",
    ".",
    "a/b",
    "/etc",
    "a\\b",
    ".hidden",
    "-x",
    "a b",
    "",
    "a" * 65,
    "a\0",
    "é",
    "%2e%2e",
    "a\n",
    "~x",
]


@pytest.fixture
def tree() -> Tree:
    """The digits preset."""
    found: Tree = yaml.safe_load(presets()["digits"])
    return found


def rename(tree: Tree, old: str, new: str, *places: tuple[str, ...]) -> Tree:
    """Return a tree in which a key of each of some mappings has another name."""
    changed = copy.deepcopy(tree)
    for place in places:
        below = changed
        for key in place:
            below = below[key]
        below[new] = below.pop(old)
    return changed


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", ["run", "data", "network", "split", "share", "noise", "question"])
def test_names_that_are_parts_of_paths_have_no_way_out(tmp_path: Path, tree: Tree, kind: str, name: str) -> None:
    changed = {
        "run": {**tree, "name": name},
        "data": rename(tree, "digits", name, ("data",)),
        "network": rename(tree, "small", name, ("networks",)),
        "split": {**tree, "data": {"digits": {"source": "npz", "paths": {name: "a.npz"}}}},
        "share": {**tree, "data": {"digits": {"source": "sklearn-digits", "split": {name: 0.5}}}},
        "noise": {**tree, "data": {"digits": {"source": "sklearn-digits", "noise": {"share": 0.5, "splits": [name]}}}},
        "question": {**tree, "interpretation": {**tree["interpretation"], "learn": name}},
    }[kind]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(ConfigError, match="string should match pattern"):
        load_config(str(path))


@pytest.mark.parametrize("name", BAD)
def test_a_run_is_not_looked_for_elsewhere(finished_run: "Run", name: str) -> None:
    for command in (["status"], ["explain", "--query", "0"]):
        result = CliRunner().invoke(cli.app, [*command, finished_run.config.store, "--run", name or "''"])
        assert result.exit_code == exits.FAILED
        (line,) = result.stderr.splitlines()
        assert "expected one of the runs tiny" in line


@pytest.mark.parametrize("name", ["../../pyproject", "papers/../digits", "/etc/passwd", "..", "digits/../digits", "\0"])
def test_a_preset_is_not_looked_for_elsewhere(name: str) -> None:
    result = CliRunner().invoke(cli.app, ["presets", name])
    assert result.exit_code == exits.BAD_CONFIG
    assert "expected one of all-cifar10, " in result.stderr


# ------------------------------------------------------------------------------------------- data sets


def save(path: Path, level: int = 0) -> Path:
    """Write an image of one level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(path)
    return path


def table(path: Path, *cells: str) -> TableSource:
    """Write a table of these paths, all of class 0, and open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["path,label", *(f"{cell},0" for cell in cells)]))
    return TableSource(Csv.model_validate({"source": "csv", "paths": {"train": str(path)}}))


def test_a_table_may_name_images_elsewhere_but_shows_nothing_of_other_files(tmp_path: Path) -> None:
    """A table's paths may be absolute or lead up: it is the user's own. The content of another file is not repeated."""
    save(tmp_path / "elsewhere.png", 7)
    (tmp_path / "passwd").write_text("root:SENTINEL:0:0")
    source = table(tmp_path / "data" / "t.csv", "../elsewhere.png", str(tmp_path / "passwd"), "../passwd")
    first, *others = [row.key for row in source.rows()]
    assert np.asarray(source.read([first])[0].image).tolist() == np.full((4, 4), 7).tolist()
    for key in others:
        with pytest.raises(ValueError, match="corrupted or not an image") as caught:
            source.read([key])
        assert "SENTINEL" not in str(caught.value)


@pytest.mark.parametrize("cell", ["../none.png", "/nowhere/none.png", "a\0b.png", "x" * 5000 + ".png", "t.csv/x.png"])
def test_a_path_in_a_table_that_leads_nowhere_is_named_in_one_line(tmp_path: Path, cell: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        list(table(tmp_path / "t.csv", cell).rows())
    assert "\n" not in str(caught.value)


def test_a_home_folder_in_a_table_is_a_folder_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save(tmp_path / "home" / "secret.png", 1)
    save(tmp_path / "~" / "secret.png", 2)
    save(tmp_path / "~nobody_has_this_name" / "a.png", 3)
    (tmp_path / "t.csv").write_text("path,label\n~/secret.png,0\n~nobody_has_this_name/a.png,0\n")
    source = TableSource(Csv.model_validate({"source": "csv", "paths": {"train": "t.csv"}}))
    found = source.read([row.key for row in source.rows()])
    assert [int(np.asarray(sample.image).max()) for sample in found] == [2, 3]


def folder(root: Path) -> FolderSource:
    """Open an image folder of one split."""
    return FolderSource(ImageFolder.model_validate({"source": "image-folder", "paths": {"train": str(root)}}).paths)


def test_links_out_of_an_image_folder_are_followed_as_images_only(tmp_path: Path) -> None:
    """Class folders are often links to a shared disk: what they lead to is read, never written."""
    save(tmp_path / "shared" / "dog" / "1.png", 5)
    save(tmp_path / "root" / "cat" / "1.png")
    (tmp_path / "passwd").write_text("root:SENTINEL:0:0")
    (tmp_path / "root" / "dog").symlink_to(tmp_path / "shared" / "dog")
    (tmp_path / "root" / "cat" / "2.png").symlink_to(tmp_path / "passwd")
    source = folder(tmp_path / "root")
    keys = [row.key for row in source.rows()]
    assert keys == ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png"]
    with pytest.raises(ValueError, match=r"sample train/cat/2\.png: corrupted or not an image") as caught:
        source.read([keys[1]])
    assert "SENTINEL" not in str(caught.value)


def test_links_in_a_circle_end_in_one_line(tmp_path: Path) -> None:
    save(tmp_path / "root" / "cat" / "1.png")
    (tmp_path / "root" / "cat" / "again").symlink_to(tmp_path / "root" / "cat")
    with pytest.raises(ValueError, match=r"^folder .*: .{10,400} is a link that leads to itself$"):
        list(folder(tmp_path / "root").rows())


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    save(tmp_path / "root" / "cat" / "1.png")
    (tmp_path / "root" / "cat" / "2.png").symlink_to(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"^folder .*: 'cat/2\.png' does not exist$"):
        list(folder(tmp_path / "root").rows())


def test_removing_what_no_run_refers_to_leaves_what_links_lead_to(
    copied_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = save(tmp_path / "precious" / "a.png")
    stage = next(Path(copied_run.config.store, "manifest").iterdir())
    stray = stage.with_name("0" * len(stage.name))
    os.makedirs(stray / "data.zarr")
    (stray / "data.zarr" / "link").symlink_to(kept.parent)
    (stray / "other").symlink_to(kept)
    result = CliRunner().invoke(cli.app, ["gc", copied_run.config.store, "--yes", "--grace", "0"])
    assert result.exit_code == exits.DONE, result.output
    assert not stray.exists()
    assert kept.exists()


@pytest.fixture
def no_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """A function that lists the working directory, an empty one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return lambda: sorted(os.listdir())


@pytest.mark.parametrize("store", ["../outside", "a/../../outside", "~/outside"])
def test_planning_writes_nowhere(
    no_writes: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = CliRunner().invoke(cli.app, ["plan", "digits", "--set", f"store={store}"])
    assert result.exit_code == exits.DONE
    assert no_writes() == []
    assert sorted(os.listdir(tmp_path)) == ["work"]
