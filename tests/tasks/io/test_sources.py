"""Contract of every source, and how one is opened."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from configs.imports import import_object
from configs.schema import AnyDataSet
from tasks.io.digits import DigitsSource
from tasks.io.samples import Picture, Row, Sample, Vector
from tasks.io.sources import SOURCES, open_source
from tests.graph_sets import graph_arrays, write_graphs
from tests.tasks.io.broden_folder import write_broden

DATA: TypeAdapter[AnyDataSet] = TypeAdapter(AnyDataSet)


class OwnSource:
    """A user's source of three images."""

    def __init__(self, label: int) -> None:
        self.label = label

    def rows(self) -> Iterable[Row]:
        """List the samples."""
        return [Row(f"train/{i}", self.label, "train", 4, "") for i in range(3)]

    def class_names(self) -> dict[int, str]:
        """Return one name."""
        return {self.label: "own"}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return images filled with the key's number."""
        return [Sample(np.full((2, 2), int(key[-1]), dtype=np.uint8), key) for key in keys]


def array_of(image: Picture | Vector) -> NDArray[Any]:  # Any: bytes or float32
    """Return the numbers of a sample."""
    return image.values if isinstance(image, Vector) else np.asarray(image)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own that can be imported."""
    (tmp_path / "own_data.py").write_text(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('own_source_module', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "source = module.OwnSource\n"
        "def nothing(): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_data"


def configs(folders: Path, own: str) -> dict[str, dict[str, Any]]:
    """Return a small data set for each source."""
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2), dtype=np.uint8)
    np.savez(folders / "a.npz", images=images, labels=np.arange(4))
    (folders / "t.csv").write_text("path,label\ntrain/dog/1.png,1\nval/cat/0.png,0\n")
    np.savez(folders / "s.npz", values=np.array([3, 1, 2]), offsets=np.array([0, 2, 3]), labels=np.array([1, 0]))
    (folders / "words.txt").write_text("good\nbad\n")
    (folders / "texts.csv").write_text("text,label\ngood bad,0\nbad,1\n")
    return {
        "sklearn-digits": {},
        "npz": {"paths": {"train": str(folders / "a.npz")}},
        "image-folder": {"paths": {"train": str(folders / "train"), "val": str(folders / "val")}},
        "csv": {"paths": {"train": str(folders / "t.csv")}},
        "imagenet": {"root": str(folders)},
        "broden": {"root": str(write_broden(folders.parent / "broden"))},
        "mini-broden": {"count": 5, "size": 32},
        "graph-npz": {"paths": {"all": str(write_graphs(folders / "g.npz", graph_arrays(4)))}},
        "sequence-npz": {"paths": {"all": str(folders / "s.npz")}},
        "texts": {"paths": {"all": str(folders / "texts.csv")}, "tokenizer": str(folders / "words.txt")},
        "import": {"object": f"{own}:source", "arguments": {"label": 5}},
    }


# These need a package: test_geometric.py and test_hugging_face.py have them.
@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("torch-geometric", "hugging-face")])
def test_every_source_keeps_the_contract(name: str, folders: Path, own_module: str) -> None:
    data = DATA.validate_python({"source": name, **configs(folders, own_module)[name]})
    source = open_source(data, threads=2)
    rows = list(source.rows())
    assert rows == list(open_source(data).rows())  # the order is fixed
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys)
    chosen = [keys[-1], keys[0]]
    forward, single = source.read(chosen), [source.read([key])[0] for key in chosen]
    for a, b in zip(forward, single, strict=True):
        assert a.digest == b.digest
        np.testing.assert_array_equal(array_of(a.image), array_of(b.image))
    assert all(row.label >= 0 and row.key.startswith(f"{row.split}/") and row.size > 0 for row in rows)
    assert set(source.class_names()) <= set(range(10))


def test_digits_need_no_files() -> None:
    assert isinstance(open_source(DATA.validate_python({"source": "sklearn-digits"})), DigitsSource)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"object": "own_data:none"}, "import path 'own_data:none': .*no attribute 'none'"),
        ({"object": "no_such_module:f"}, "import path 'no_such_module:f': No module named"),
        ({"object": "own_data:source"}, "data source own_data:source: .*missing 1 required positional argument"),
        ({"object": "own_data:nothing"}, r"own_data:nothing: expected the methods rows, class_names, read, found int"),
    ],
)
def test_bad_import_paths_are_named(own_module: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(DATA.validate_python({"source": "import", **settings}))


def test_dotted_names_are_walked() -> None:
    assert import_object("os:path.join")("a", "b") == "a/b"
