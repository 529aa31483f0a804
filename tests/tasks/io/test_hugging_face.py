"""Folders that the real package `datasets` writes, read back: pixels, labels, splits, digests, errors."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from configs.schema import AnyDataSet
from storage.stages import open_finished
from tasks.io.digests import source_digest
from tasks.io.hugging_face_folder import parquet_splits
from tasks.io.manifest import read_manifest
from tasks.io.sources import Source, open_source

if TYPE_CHECKING:
    from tests.conftest import Run

datasets = pytest.importorskip("datasets", reason="needs the extra `hf`")

Tree = dict[str, Any]  # Any: YAML
Pixels = NDArray[np.uint8]
NAMES = ["cat", "dog", "bird"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the package from the network and from the user's cache."""

    def refuse(*given: object) -> None:
        raise AssertionError("expected no connection, found one")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def pixels(count: int, seed: int = 0, shape: tuple[int, ...] = (5, 6, 3)) -> Pixels:
    """Return seeded noise images."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def table(images: Pixels, labels: list[int]) -> Any:  # Any: the package has no types
    """Return a data set with a column of images and one of class labels."""
    features = datasets.Features(
        {"id": datasets.Value("int64"), "image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    given = {"id": list(range(len(labels))), "image": [Image.fromarray(one) for one in images], "label": labels}
    return datasets.Dataset.from_dict(given, features=features)


def opened(path: Path, **settings: Any) -> Source:  # Any: keys of the config
    """Return the source of a folder."""
    return open_source(described(path, **settings))


def described(path: Path, **settings: Any) -> AnyDataSet:  # Any: keys of the config
    """Return the section of a config."""
    adapter = TypeAdapter[AnyDataSet](AnyDataSet)
    return adapter.validate_python({"source": "hugging-face", "path": str(path), **settings})


def saved(path: Path) -> tuple[dict[str, Pixels], dict[str, list[int]]]:
    """Save two splits, the first as three files; return their pixels and labels."""
    images = {"train": pixels(7), "test": pixels(2, seed=1)}
    labels = {"train": [0, 1, 2, 0, 1, 2, 2], "test": [1, 0]}
    tables = {split: table(images[split], labels[split]) for split in images}
    datasets.DatasetDict(tables).save_to_disk(path, num_shards={"train": 3, "test": 1})
    return images, labels


def parquet(path: Path) -> tuple[dict[str, Pixels], dict[str, list[int]]]:
    """Write the same as Parquet files, the first split as two."""
    images = {"train": pixels(7), "test": pixels(2, seed=1)}
    labels = {"train": [0, 1, 2, 0, 1, 2, 2], "test": [1, 0]}
    whole = table(images["train"], labels["train"])
    (path / "data").mkdir(parents=True)
    (path / "README.md").write_text(
        "---\nconfigs:\n- config_name: x\n  data_files: https://example.org/x.parquet\n---\n"
    )
    for number, span in enumerate((range(4), range(4, 7))):
        whole.select(span).to_parquet(path / "data" / f"train-{number:05d}-of-00002.parquet")
    table(images["test"], labels["test"]).to_parquet(path / "data" / "test-00000-of-00001.parquet")
    return images, labels


def image_folder(path: Path) -> tuple[dict[str, Pixels], dict[str, list[int]]]:
    """Write the same as files, in folders of splits and classes, sorted by class."""
    images = {"train": pixels(7), "test": pixels(2, seed=1)}
    labels = {"train": [0, 0, 1, 1, 2, 2, 2], "test": [0, 1]}
    order = sorted(NAMES)
    for split, split_labels in labels.items():
        for number, label in enumerate(split_labels):
            file = path / split / order[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[split][number]).save(file)
    for label in range(3):  # a class without test images has no folder there
        (path / "test" / order[label]).mkdir(exist_ok=True)
    return images, labels


@pytest.mark.parametrize("write", [saved, parquet, image_folder])
def test_every_layout_gives_the_pixels_and_labels_that_were_written(
    tmp_path: Path, write: Callable[[Path], tuple[dict[str, Pixels], dict[str, list[int]]]]
) -> None:
    images, labels = write(tmp_path / "set")
    source = opened(tmp_path / "set")
    rows = list(source.rows())
    assert [row.key for row in rows] == [
        f"{split}/{i}" for split in ("test", "train") for i in range(len(labels[split]))
    ]
    assert [row.label for row in rows] == [*labels["test"], *labels["train"]]
    assert [row.split for row in rows] == ["test"] * 2 + ["train"] * 7
    assert [source.class_names()[label] for label in range(3)] == (sorted(NAMES) if write is image_folder else NAMES)
    assert all(row.size > 0 for row in rows)
    assert list(opened(tmp_path / "set").rows()) == rows
    samples = source.read([row.key for row in rows])
    for sample, expected in zip(samples, [*images["test"], *images["train"]], strict=True):
        np.testing.assert_array_equal(np.asarray(sample.picture), expected)
    assert len({sample.digest for sample in samples}) == 9
    assert [sample.digest for sample in source.read(["train/3", "test/0"])] == [samples[5].digest, samples[0].digest]


def test_a_set_without_splits_has_the_split_all_and_can_be_divided(tmp_path: Path) -> None:
    table(pixels(12), [0, 1, 2] * 4).save_to_disk(tmp_path / "saved")
    table(pixels(12), [0, 1, 2] * 4).to_parquet(tmp_path / "parquet" / "pets.parquet")
    image_folder(tmp_path / "both")
    (tmp_path / "both" / "test").rename(tmp_path / "images")
    for name in ("saved", "parquet", "images"):
        assert {row.split for row in opened(tmp_path / name).rows()} == {"all"}, name
    manifest = read_manifest(described(tmp_path / "saved", split={"train": 0.5, "val": 0.5}))
    assert manifest["split"].value_counts().to_dict() == {"train": 6, "val": 6}


def test_splits_can_be_chosen(tmp_path: Path) -> None:
    saved(tmp_path / "set")
    assert {row.split for row in opened(tmp_path / "set", splits=["train"]).rows()} == {"train"}
    with pytest.raises(ValueError, match="splits: expected some of train, test, found 'val'"):
        list(opened(tmp_path / "set", splits=["val"]).rows())


def test_arrays_texts_integers_and_grey_images(tmp_path: Path) -> None:
    grey, colour = pixels(4, shape=(5, 6)), pixels(4, seed=2)
    features = datasets.Features(
        {
            "pixels": datasets.Array3D((5, 6, 3), "uint8"),
            "grey": datasets.Image(),
            "name": datasets.Value("string"),
            "number": datasets.Value("int8"),
        }
    )
    given = {"pixels": list(colour), "grey": [Image.fromarray(one) for one in grey], "name": ["b", "a", "c", "a"]}
    datasets.Dataset.from_dict({**given, "number": [3, 0, 1, 3]}, features=features).save_to_disk(tmp_path / "set")
    arrays = opened(tmp_path / "set", image_column="pixels", label_column="name")
    assert [row.label for row in arrays.rows()] == [1, 0, 2, 0]
    assert arrays.class_names() == {0: "a", 1: "b", 2: "c"}
    read = [np.asarray(sample.picture) for sample in arrays.read([f"all/{i}" for i in range(4)])]
    np.testing.assert_array_equal(np.stack(read), colour)
    greys = opened(tmp_path / "set", label_column="number")
    assert [row.label for row in greys.rows()] == [3, 0, 1, 3]
    assert greys.class_names() == {}
    assert greys.read(["all/2"])[0].picture.mode == "L"  # type: ignore[union-attr]  # a file
    mapped = opened(tmp_path / "set", label_column="name", classes={"a": 5, "b": 0, "c": 5})
    assert [row.label for row in mapped.rows()] == [0, 5, 5, 5]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"image_column": "picture"},
            r"image_column: expected one of id \(int64\), image \(Image\), label \(ClassLabel\), found 'picture'",
        ),
        ({"image_column": "id"}, r"column 'id': expected images, or arrays of uint8, found int64; name another"),
        ({"label_column": "kind"}, r"label_column: expected one of id \(int64\), .* found 'kind'"),
        ({"label_column": "image"}, r"column 'image': expected class labels, integers or names, found Image;"),
        (
            {"classes": {"cat": 0, "dog": 1}},
            r"sample train/2: column 'label': expected a label of `classes`, found 'bird'; add it",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    saved(tmp_path / "set")
    source = opened(tmp_path / "set", **settings)
    with pytest.raises(ValueError, match=text):
        source.read([row.key for row in source.rows()])


def test_labels_that_are_missing_are_named_with_their_sample(tmp_path: Path) -> None:
    table(pixels(3), [0, -1, 1]).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"sample all/1: column 'label': expected a label from 0, found -1; leave the"):
        list(opened(tmp_path / "set").rows())


def test_two_columns_of_images_ask_for_a_choice(tmp_path: Path) -> None:
    whole = table(pixels(3), [0, 1, 2])
    mask = table(pixels(3, seed=3), [0, 1, 2]).rename_columns({"image": "mask", "id": "mask id", "label": "other"})
    datasets.concatenate_datasets([whole, mask.select_columns(["mask"])], axis=1).save_to_disk(tmp_path / "set")
    with pytest.raises(
        ValueError, match=r"expected one column of images, found 2 among .*mask \(Image\); set `image_column`"
    ):
        list(opened(tmp_path / "set").rows())


@pytest.mark.parametrize("path", ["gone", "https://example.org/set", "file.txt", "empty"])
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    place = path if "://" in path else str(tmp_path / path)
    with pytest.raises(ValueError, match=r"^hugging-face .*: expected a (local folder|data set), found [^\n]*$"):
        list(open_source(described(Path(".")).model_copy(update={"path": place})).rows())


def test_a_script_in_a_folder_does_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    parquet(folder)
    (folder / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('x')")
    assert len(list(opened(folder).rows())) == 9
    assert not (tmp_path / "ran").exists()


def test_the_digest_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    for write in (saved, parquet, image_folder):
        folder = tmp_path / write.__name__
        write(folder)
        first = source_digest(described(folder))
        moved = folder.rename(tmp_path / f"{write.__name__} moved")
        assert source_digest(described(moved)) == first
        write(folder)
        data = next(file for file in sorted(folder.rglob("*")) if file.suffix in (".arrow", ".parquet", ".png"))
        data.write_bytes(data.read_bytes() + b"\0")
        assert source_digest(described(folder)) != first


def test_a_changed_folder_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    table(pixels(3), [0, 1, 2]).to_parquet(folder / "train.parquet")
    assert len(list(opened(folder).rows())) == 3
    table(pixels(5), [0, 1, 2, 0, 1]).to_parquet(folder / "train.parquet")
    assert len(list(opened(folder).rows())) == 5
    image_folder(tmp_path / "images")
    assert len(list(opened(tmp_path / "images").rows())) == 9
    (tmp_path / "images" / "train" / "dog" / "6.png").unlink()
    assert len(list(opened(tmp_path / "images").rows())) == 8


def test_splits_of_parquet_files_come_from_their_names(tmp_path: Path) -> None:
    names = (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002-0123456789abcdef.parquet",
        "test/0000.parquet",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {
        split: [str(Path(file).relative_to(tmp_path)) for file in files]
        for split, files in parquet_splits(tmp_path).items()
    }
    assert found == {"train": [*names[:2]], "test": [names[2]]}


def test_a_large_set_is_not_held_in_memory(tmp_path: Path) -> None:
    """Rows and one image of 60 MB of pixels: what Python allocates stays far below."""
    import tracemalloc

    images = pixels(20, shape=(1000, 1000, 3))
    datasets.Dataset.from_dict(
        {"image": list(images), "label": [0, 1] * 10},
        features=datasets.Features(
            {"image": datasets.Array3D((1000, 1000, 3), "uint8"), "label": datasets.Value("int64")}
        ),
    ).save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set", image_column="image")
    tracemalloc.start()
    assert len(list(source.rows())) == 20
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_network_is_trained_on_a_folder(tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> None:
    images = pixels(24, shape=(8, 8))
    datasets.DatasetDict(
        {"train": table(images, [0, 1, 2] * 8), "val": table(pixels(6, 1, (8, 8)), [0, 1, 2] * 2)}
    ).save_to_disk(tmp_path / "set")
    train = {"data": "pets", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.05}, "batches": {"size": 6}}
    network = {"model": "small-cnn", "arguments": {"width": 4, "classes": 3}, "preprocessing": {"mode": "L"}}
    run = new_run(
        {
            "name": "pets",
            "store": str(tmp_path / "store"),
            "cluster": {"kind": "serial"},
            "data": {"pets": {"source": "hugging-face", "path": str(tmp_path / "set")}},
            "networks": {"small": network | {"train": train}},
            "decomposition": {"networks": ["small"], "k1": 2, "k2": 2, "gallery": 2},
        }
    ).finish()
    (manifest,) = (spec for spec in run.plan.stages if spec.stage == "manifest")
    summary = open_finished(run.job.store, manifest).summary
    assert summary["class_names"] == {"0": "cat", "1": "dog", "2": "bird"}
    assert {split: sum(found["counts"]) for split, found in summary["splits"].items()} == {"train": 24, "val": 6}


def test_changed_labels_of_an_image_folder_change_its_digest(tmp_path: Path) -> None:
    for number, image in enumerate(pixels(4)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    found = []
    for labels in ([0, 1, 0, 1], [1, 0, 1, 0]):
        rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
        (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
        found.append(source_digest(described(tmp_path)))
    assert found[0] != found[1]


def test_what_the_package_keeps_in_a_saved_folder_is_not_data(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    table(pixels(3), [0, 1, 2]).save_to_disk(folder)
    first = source_digest(described(folder))
    mapped = datasets.load_from_disk(folder).map(lambda row: {"id": row["id"] + 1})
    assert any(Path(one["filename"]).name.startswith("cache-") for one in mapped.cache_files)
    assert source_digest(described(folder)) == first


@pytest.mark.parametrize("form", ["torch", "pandas", "arrow", "numpy"])
def test_the_format_that_a_set_was_saved_with_does_not_matter(tmp_path: Path, form: str) -> None:
    images = pixels(3)
    table(images, [0, 1, 2]).with_format(form, columns=["label"]).save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set")
    keys = [row.key for row in source.rows()]
    for sample, image in zip(source.read(keys), images, strict=True):
        np.testing.assert_array_equal(np.asarray(sample.image), image)


def test_parquet_files_of_two_data_sets_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        table(pixels(2), [0, 1]).to_parquet(tmp_path / name / "train" / "0000.parquet")
    with pytest.raises(
        ValueError, match=r"expected one data set, found split 'train' in one/train and two/train; give"
    ):
        list(opened(tmp_path).rows())
    assert len(list(opened(tmp_path / "two").rows())) == 2


def test_brackets_in_a_path_are_letters(tmp_path: Path) -> None:
    table(pixels(2), [0, 1]).to_parquet(tmp_path / "a[old]*" / "train.parquet")
    assert len(list(opened(tmp_path / "a[old]*").rows())) == 2
