"""The manifest stage: rows as the data set lists them, and positions class by class."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from configs.schema import Npz, SklearnDigits
from storage.stages import open_finished
from tasks.steps.common.manifest import data_of, distinct_names, manifest_spec, positions

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def test_rows_are_the_first_samples_of_each_class(finished_run: "Run") -> None:
    spec = finished_run.plan.shared.manifests["digits"]
    stage = open_finished(finished_run.job.store, spec)
    table = pd.read_parquet(Path(finished_run.config.store, spec.path, "files/manifest.parquet"))
    assert table.groupby(["split", "label_given"]).size().to_dict() == {
        **{("train", label): 12 for label in range(10)},
        **{("val", label): 4 for label in range(10)},
    }
    np.testing.assert_array_equal(table["label_given"], load_digits().target[table["id"]])
    assert stage.summary["splits"]["val"] == {"labels": list(range(10)), "counts": [4] * 10}
    assert stage.summary["class_names"]["7"] == "7"


def test_positions_are_class_major_and_stable(finished_run: "Run") -> None:
    spec = finished_run.plan.shared.manifests["digits"]
    rows = positions(finished_run.job.store, spec.path, "train")
    by_hand = sorted(zip(rows["label_given"], rows["id"], strict=True))
    assert list(zip(rows["label_given"], rows["id"], strict=True)) == by_hand


def test_a_manifest_is_known_by_the_content_of_files_not_their_place(tmp_path: Path) -> None:
    specs = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        file = tmp_path / place / f"{place}.npz"
        np.savez(file, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
        specs.append(manifest_spec(place, Npz(source="npz", paths={"train": str(file)})))
    assert specs[0].key == specs[1].key
    np.savez(tmp_path / "b" / "b.npz", images=np.ones((2, 4, 4), np.uint8), labels=np.arange(2))
    other = manifest_spec("b", Npz(source="npz", paths={"train": str(tmp_path / "b" / "b.npz")}))
    assert other.key != specs[0].key


def test_the_data_set_of_a_spec() -> None:
    data = SklearnDigits(source="sklearn-digits", per_class=3)
    assert data_of(manifest_spec("digits", data)) == data
    default = manifest_spec("digits", SklearnDigits(source="sklearn-digits"))
    assert dict(default.parameters) == {"source": "sklearn-digits"}


def test_classes_of_one_name_are_told_apart() -> None:
    names = {0: "drake", 134: "crane", 517: "crane"}
    assert distinct_names(names) == {0: "drake", 134: "crane (134)", 517: "crane (517)"}
