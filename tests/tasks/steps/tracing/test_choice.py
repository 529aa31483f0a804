"""Which samples are explained: named ones and misclassified ones first."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from configs.load import ConfigError
from configs.schema import Config
from flows import cli, exits
from flows.plan import make_plan
from flows.progress import planned_stages
from storage.stages import open_finished
from tasks.steps.tracing.choice import find_samples, wrong_first
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import manifest_rows, train_plainly

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def test_wrong_ones_come_first_by_turns_of_the_classes() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([1, 2, 0, 1, 1, 0, 2, 2])  # wrong: 0, 1, 3 of class 0; 5 of class 1
    assert wrong_first(labels, predicted, 2).tolist() == [0, 5]
    assert wrong_first(labels, predicted, 3).tolist() == [0, 1, 5]
    assert wrong_first(labels, predicted, 6).tolist() == [0, 1, 3, 5, 2, 4]  # then the right ones
    assert wrong_first(labels, predicted, 99).tolist() == [0, 1, 3, 5, 2, 4, 6, 7]
    assert wrong_first(labels, labels, 3).tolist() == [0, 4, 6]


def test_the_permuted_network_starts_from_the_same_weights(mlp: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    mlp["tracing"] |= {"evaluation": {"randomisation": True}}
    (name,) = mlp["networks"]
    base = copy.deepcopy(mlp["networks"][name])
    del base["train"]["record"]
    mlp["networks"]["base"] = base
    mlp["networks"][name]["train"]["start"] = {"network": "base"}
    plan = new_run(mlp).plan
    (trace,) = traces(plan)
    assert trace.permuted is not None
    assert trace.permuted.queries.inputs["network"].inputs["start"] == plan.shared.trainings["base", 0]
    assert trace.training.inputs["start"] == plan.shared.trainings["base", 0]


def test_misclassified_queries_are_first_and_the_permuted_network_gets_the_same(
    mlp: Tree, new_run: Callable[[Tree], "Run"]
) -> None:
    mlp["data"]["digits"]["per_class"] = {"train": 2, "val": 4}
    mlp["tracing"] |= {"queries": {"wrong": True, "count": 12}, "evaluation": {"randomisation": True}}
    run = new_run(mlp).finish()
    (trace,) = traces(run.plan)
    stage = open_finished(run.job.store, trace.queries)
    ids, labels = np.asarray(stage.read("sample_id"), np.int64), stage.read("label")
    rows = manifest_rows(run, trace.training.inputs["data"], "val")
    plain = train_plainly(run, trace.training)
    given = rows["label_given"].to_numpy()
    predicted = plain.logits(rows["id"].to_numpy()).argmax(1)
    wrong = set(rows["id"][predicted != given])
    assert 0 < len(wrong) < 40
    count = min(12, len(wrong))
    assert {int(i) in wrong for i in ids[:count]} == {True}
    assert len(set(ids.tolist())) == 12
    assert not wrong & set(ids[count:].tolist()) or len(wrong) > 12
    assert (stage.read("logits").argmax(1) != labels)[:count].all()
    assert trace.permuted is not None
    again = open_finished(run.job.store, trace.permuted.queries)
    np.testing.assert_array_equal(again.read("sample_id"), ids)


def test_named_samples_are_the_queries_in_their_order(mlp: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    plan = make_plan(Config.model_validate(mlp))
    listed = samples_of(plan.shared.manifests["digits"])
    val = listed[listed["split"] == "val"]
    wanted = [int(val["id"].iloc[7]), str(val["key"].iloc[2]), int(val["id"].iloc[0])]
    mlp["tracing"]["queries"] = {"samples": wanted}
    run = new_run(mlp).finish()
    stage = open_finished(run.job.store, traces(run.plan)[0].queries)
    assert stage.read("sample_id").tolist() == val["id"].iloc[[7, 2, 0]].tolist()
    assert stage.read("label").tolist() == val["label_given"].iloc[[7, 2, 0]].tolist()
    assert "count" not in stage.note["identity"]["parameters"]


def samples_of(manifest: Any) -> pd.DataFrame:  # Any: a spec
    """List a data set."""
    from tasks.io.manifest import read_manifest
    from tasks.steps.common.manifest import data_of

    return read_manifest(data_of(manifest))


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ({"samples": [123456]}, "tracing.queries.samples: expected ids or keys of data.digits, found 123456; ids are "),
        (
            {"samples": ["cat.png", 0]},
            "tracing.queries.samples: expected ids or keys of data.digits, found 'cat.png'; ",
        ),
        ({"samples": []}, "tracing.queries.samples: tuple should have at least 1 item"),
        ({"samples": [0, 0]}, "tracing.queries: samples: expected different entries, found the same one twice"),
        ({"samples": [0], "wrong": True}, "tracing.queries: wrong: expected the samples alone, found wrong with them"),
        ({"samples": [0], "count": 3}, "tracing.queries: count: expected the samples alone, found count with them"),
        ({"wrong": "often"}, "tracing.queries.wrong: input should be a valid boolean"),
    ],
)
def test_bad_choices_are_a_line(mlp: Tree, tmp_path: Path, queries: Tree, said: str) -> None:
    mlp["tracing"]["queries"] = queries
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(mlp))
    result = CliRunner().invoke(cli.app, ["plan", str(tmp_path / "bad.yaml")])
    assert result.exit_code == exits.BAD_CONFIG
    (line,) = result.stderr.splitlines()
    assert said in line, line


def test_samples_of_another_split_and_twice_are_named() -> None:
    rows = pd.DataFrame({"id": [0, 1, 2], "key": ["a/0", "a/1", "b/2"], "split": ["train", "val", "val"]})
    assert find_samples(rows, ["b/2", 1], "val", "d")["id"].tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"expected samples of the split 'val' of data\.d, found 0 of 'train'; set"):
        find_samples(rows, [1, 0], "val", "d")
    with pytest.raises(ValueError, match=r"expected different samples, found 'a/1' twice"):
        find_samples(rows, [1, "a/1"], "val", "d")


@pytest.mark.parametrize(
    ("units", "said"),
    [
        (["3:10"], "tracing.units: expected 3:0 to 3:9, found '3:10'"),
        (["fc:0"], "tracing.units: expected LAYER:INDEX with a recorded layer of 1, 3, found 'fc:0'"),
    ],
)
def test_units_that_a_network_lacks_are_named_by_the_plan(mlp: Tree, units: list[str], said: str) -> None:
    mlp["tracing"]["units"] = units
    with pytest.raises(ConfigError, match=said.replace("[", "\\[")):
        planned_stages(make_plan(Config.model_validate(mlp)), None)
