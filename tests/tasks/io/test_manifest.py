"""Tests of `tasks.io.manifest`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from configs.schema import AnyDataSet
from tasks.io.manifest import check_labels, class_positions, read_class_names, read_manifest
from tasks.io.samples import Row, Sample

DATA: TypeAdapter[AnyDataSet] = TypeAdapter(AnyDataSet)


class Rows:
    """A source of given rows."""

    def __init__(self, rows: Sequence[tuple[Any, str]], names: dict[int, str] | None = None) -> None:
        self.given = [Row(f"{split}/{i}", label, split, 1, "e") for i, (label, split) in enumerate(rows)]
        self.names = names or {}

    def rows(self) -> Iterable[Row]:
        """List the samples."""
        return self.given

    def class_names(self) -> dict[int, str]:
        """Return the names."""
        return self.names

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Read nothing."""
        raise AssertionError(keys)


def manifest(source: Rows, **settings: Any) -> pd.DataFrame:
    """Return the manifest of given rows."""
    data = DATA.validate_python({"source": "import", "object": "a:b", **settings})
    return read_manifest(data, source)


def digits(**settings: Any) -> pd.DataFrame:
    """Return the digits' manifest."""
    return read_manifest(DATA.validate_python({"source": "sklearn-digits", **settings}))


def test_columns_and_running_ids() -> None:
    table = manifest(Rows([(1, "train"), (0, "train"), (1, "val"), (0, "val")]))
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {
        "id": "int64",
        "key": "str",
        "label_given": "int64",
        "label_true": "int64",
        "split": "str",
        "size": "int64",
        "etag": "str",
    }
    assert table.to_dict("list") == {
        "id": [0, 1, 2, 3],
        "key": ["train/0", "train/1", "val/2", "val/3"],
        "label_given": [1, 0, 1, 0],
        "label_true": [1, 0, 1, 0],
        "split": ["train", "train", "val", "val"],
        "size": [1, 1, 1, 1],
        "etag": ["e"] * 4,
    }


def test_split_is_drawn_per_class_from_its_seed() -> None:
    table = digits(split={"train": 0.8, "val": 0.2})
    assert len(table) == 1797
    counts = table.groupby(["label_given", "split"]).size().unstack()
    totals = counts.sum(axis=1)
    np.testing.assert_array_equal(counts["train"], np.rint(0.8 * totals).astype(int))
    pd.testing.assert_frame_equal(
        table, digits(split={"val": 0.2, "train": 0.8})
    )  # the order of the shares does not matter
    other = digits(split_seed=1)
    assert (table["split"] != other["split"]).sum() > 300
    assert (table["id"] == other["id"]).all()


def test_the_draw_is_a_permutation_per_class() -> None:
    table = manifest(Rows([(0, "all")] * 10), split={"a": 0.3, "b": 0.5})
    order = np.random.default_rng([0, 0]).permutation(10)
    assert sorted(order[:3].tolist()) == table["id"][table["split"] == "a"].tolist()
    assert sorted(order[3:8].tolist()) == table["id"][table["split"] == "b"].tolist()
    assert len(table) == 8  # the shares leave two over


def test_a_smaller_seedless_share_keeps_ids() -> None:
    everything, few = digits(), digits(per_class={"train": 3})
    merged = few.merge(everything, on="id", suffixes=("", "_all"))
    assert len(merged) == len(few)
    assert (merged["key"] == merged["key_all"]).all()
    assert (merged["split"] == merged["split_all"]).all()


@pytest.mark.parametrize(("per_class", "train", "val"), [(3, 3, 3), ({"train": 2, "val": 1}, 2, 1)])
def test_per_class_keeps_the_first_of_each_class_and_split(per_class: Any, train: int, val: int) -> None:
    full, table = digits(), digits(per_class=per_class)
    for split, n in {"train": train, "val": val}.items():
        for label in range(10):
            expected = full["id"][(full["split"] == split) & (full["label_given"] == label)][:n]
            assert (
                table["id"][(table["split"] == split) & (table["label_given"] == label)].tolist() == expected.tolist()
            )


def test_per_class_beyond_a_class_keeps_all_of_it() -> None:
    assert len(manifest(Rows([(0, "train"), (1, "train"), (1, "train")]), per_class=2)) == 3


def test_class_positions_are_by_label_then_id() -> None:
    labels, ids = np.array([1, 0, 1, 0]), np.array([7, 9, 2, 3])
    np.testing.assert_array_equal(class_positions(labels, ids), [3, 1, 2, 0])


@pytest.mark.parametrize(
    ("rows", "names", "settings", "message"),
    [
        ([], {}, {}, "expected samples in the data set, found none"),
        ([(-1, "train")], {}, {}, "sample train/0: expected an integer of at least 0 as label, found -1"),
        ([(0.5, "train")], {}, {}, "sample train/0: expected an integer of at least 0 as label, found 0.5"),
        ([(True, "train")], {}, {}, "sample train/0: expected an integer of at least 0 as label, found True"),
        ([(0, "train"), (1, "train"), (0, "val")], {}, {}, "class 1: expected samples in split 'val', found none"),
        ([(0, "train")], {0: "cat", 1: "dog"}, {}, r"class 1 \(dog\): expected samples in split 'train'"),
        ([(0, "train")], {}, {"per_class": {"val": 3}}, "per_class: expected one of the splits train, found 'val'"),
        ([(0, "train")], {}, {"split": {"val": 0.5}}, "split: expected samples without splits .* found splits train"),
        ([(0, "all")], {}, {"split": {"a": 0.9, "b": 0.1}}, "class 0: expected samples in split 'b'"),
    ],
)
def test_bad_data_is_named(rows: Any, names: dict[int, str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        manifest(Rows(rows, names), **settings)


def test_a_key_that_stands_twice_is_named() -> None:
    source = Rows([(0, "train"), (0, "train")])
    source.given[1] = source.given[0]
    with pytest.raises(ValueError, match="sample train/0: expected once in the data set, found twice"):
        manifest(source)


def test_an_empty_class_folder_is_named(folders: Path) -> None:
    (folders / "val/bird").mkdir()
    data = DATA.validate_python({"source": "image-folder", "paths": {s: str(folders / s) for s in ("train", "val")}})
    with pytest.raises(ValueError, match=r"class 0 \(bird\): expected samples in split 'train'"):
        read_manifest(data)


def test_an_empty_split_is_named(folders: Path) -> None:
    for name in ("cat", "dog"):
        (folders / "val" / name / "0.png").unlink()
    for data in (
        {"source": "image-folder", "paths": {split: str(folders / split) for split in ("train", "val")}},
        {"source": "imagenet", "root": str(folders)},
    ):
        with pytest.raises(ValueError, match=r"class 0 \(cat\): expected samples in split 'val'"):
            read_manifest(DATA.validate_python(data))


@pytest.mark.parametrize("given", [["zero", "one"], {0: "zero", 1: "one"}])
def test_class_names_of_the_config_come_first(given: Any) -> None:
    names = read_class_names(DATA.validate_python({"source": "sklearn-digits", "class_names": given}))
    assert (names[0], names[1], names[2]) == ("zero", "one", "2")


def test_labels_beyond_the_outputs_are_named() -> None:
    check_labels(np.array([0, 9]), 10, "digits")
    with pytest.raises(
        ValueError, match=r"data digits: expected labels 0 to 9, as the network has 10 outputs, found 10 \(1 of"
    ):
        check_labels(np.array([3, 10]), 10, "digits")


# ---------------------------------------------------------------------------------------- label noise


def test_flipped_labels_are_a_share_of_a_split_and_never_right() -> None:
    clean, noisy = digits(), digits(noise={"share": 0.1})
    pd.testing.assert_frame_equal(noisy.drop(columns="label_given"), clean.drop(columns="label_given"))
    wrong = noisy["label_given"] != noisy["label_true"]
    assert wrong[noisy["split"] == "train"].sum() == round(0.1 * (clean["split"] == "train").sum()) == 144
    assert not wrong[noisy["split"] == "val"].any()
    assert noisy["label_given"].dtype == np.int64
    pd.testing.assert_frame_equal(noisy, digits(noise={"share": 0.1, "seed": 0}))
    other = digits(noise={"share": 0.1, "seed": 1})
    assert ((other["label_given"] != other["label_true"]) & wrong).sum() < 50  # 14 by chance


def test_every_other_class_is_equally_likely() -> None:
    noisy = digits(noise={"share": 1.0, "splits": ["train", "val"]})
    assert (noisy["label_given"] != noisy["label_true"]).all()
    counts = noisy.groupby(["label_true", "label_given"]).size().unstack(fill_value=0).to_numpy()
    np.testing.assert_array_equal(np.diag(counts), 0)
    others = counts[~np.eye(10, dtype=bool)]  # of about 180 samples a class, 20 each
    assert 5 <= others.min() <= others.max() <= 40
    assert abs(others.mean() - 1797 / 90) < 1e-9


def test_a_flip_goes_to_classes_that_there_are() -> None:
    rows = [(label, split) for label in (3, 7) for split in ("train", "val") for _ in range(4)]
    noisy = manifest(Rows(rows), noise={"share": 0.5})
    flipped = noisy[noisy["label_given"] != noisy["label_true"]]
    assert len(flipped) == 4
    np.testing.assert_array_equal(flipped["label_given"], 10 - flipped["label_true"])


def test_permuted_labels_are_exchanged_within_a_split() -> None:
    noisy = digits(noise={"share": 1.0, "kind": "permute"}, per_class=30)
    train = noisy[noisy["split"] == "train"]
    assert sorted(train["label_given"]) == sorted(train["label_true"])
    assert 0.8 < (train["label_given"] != train["label_true"]).mean() < 1  # 0.9 by chance
    np.testing.assert_array_equal(
        noisy["label_given"][noisy["split"] == "val"], noisy["label_true"][noisy["split"] == "val"]
    )


def test_noise_of_one_split_is_the_same_whatever_other_splits_have() -> None:
    one, both = (digits(noise={"share": 0.2, "splits": splits}) for splits in (["val"], ["train", "val"]))
    val = one["split"] == "val"
    np.testing.assert_array_equal(one["label_given"][val], both["label_given"][val])
    assert (one["label_given"][~val] == one["label_true"][~val]).all()
    assert (both["label_given"][~val] != both["label_true"][~val]).sum() == round(0.2 * (~val).sum())


def test_noise_in_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"noise\.splits: expected one of the splits train, val, found 'test'"):
        digits(noise={"share": 0.1, "splits": ["train", "test"]})
