"""The teachers of suspects: what each example added to another class's logit less the label's, in a plain loop."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from tasks.steps.report import write_report
from tasks.steps.tracing.suspects import read_suspects
from tasks.steps.tracing.teachers import KEPT, other_classes, read_teachers
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Doubles, Plain, mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def teachers_tree(store: Path, **record: Any) -> Tree:
    """An MLP in batches of four on labels of which a fifth is flipped."""
    tree = mlp_tree(store)
    tree["data"]["digits"]["noise"] = {"share": 0.2}
    tree["networks"]["net"]["train"] |= {"batches": {"size": 4}, "epochs": 4, "record": record}
    tree["tracing"]["suspects"] = 5
    return tree


@pytest.fixture(scope="module")
def taught_run(tmp_path_factory: pytest.TempPathFactory, new_run: NewRun) -> "Run":
    """A finished run: not to be changed."""
    return new_run(teachers_tree(tmp_path_factory.mktemp("teachers") / "store")).finish()


def tables(run: "Run") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The suspects and their teachers."""
    trace = traces(run.plan)[0]
    assert trace.suspects is not None
    assert trace.teachers is not None
    return read_suspects(run.job.store, trace.suspects), read_teachers(run.job.store, trace.teachers)


def test_teachers_raised_the_other_logit_most(taught_run: "Run", retrain: Callable[..., Plain]) -> None:
    suspects, teachers = tables(taught_run)
    plain = retrain(taught_run, traces(taught_run.plan)[0].training)
    ids, labels = suspects["sample_id"].to_numpy(), suspects["label_given"].to_numpy()
    logits = plain.logits(ids)
    others = [
        max((c for c in range(10) if c != given), key=lambda c: row[c])
        for row, given in zip(logits, labels, strict=True)
    ]
    sums: dict[int, Doubles] = {example: np.zeros(len(ids)) for example in plain.ids.tolist()}
    for sign, classes in ((1, np.array(others)), (-1, labels)):
        found, decay, _ = plain.logit("3", ids, classes)
        for example, values in plain.summed(found - decay).items():
            sums[example] += sign * values
    names = dict(zip(plain.rows["id"].tolist(), plain.rows["key"].tolist(), strict=True))
    given = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    for q, suspect in enumerate(ids.tolist()):
        mine = teachers[teachers["sample_id"] == suspect]
        best = sorted((example for example in sums if sums[example][q] > 0), key=lambda i: -sums[i][q])[:KEPT]
        assert mine["example_id"].tolist() == best
        assert set(mine["other"]) <= {others[q]}
        np.testing.assert_allclose(mine["value"], [sums[i][q] for i in best], rtol=2e-4, atol=1e-6)
        whole = sum(max(0.0, values[q]) for values in sums.values())
        np.testing.assert_allclose(mine["share"], [sums[i][q] / whole for i in best], rtol=2e-4)
        assert mine["example_key"].tolist() == [str(names[i]) for i in best]
        assert mine["example_label"].tolist() == [given[i] for i in best]
        assert mine["place"].tolist() == list(range(1, len(best) + 1))
        assert suspect not in best  # its own steps work for its label


def test_the_other_class_is_the_answer_or_else_the_runner_up() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], np.float32)
    assert other_classes(logits, np.array([1, 0])).tolist() == [2, 1]


def test_other_archives_give_the_same_teachers(taught_run: "Run", new_run: NewRun, tmp_path: Path) -> None:
    exact = tables(taught_run)[1]
    for kind in ("replay", "hybrid"):
        found = tables(new_run(teachers_tree(tmp_path / kind, kind=kind)).finish())[1]
        assert found["example_id"].tolist() == exact["example_id"].tolist()
        np.testing.assert_allclose(found["value"], exact["value"], rtol=0 if kind == "replay" else 1e-3)


def test_without_the_output_layer_in_the_archive_there_are_none(new_run: NewRun, tmp_path: Path) -> None:
    assert not len(tables(new_run(teachers_tree(tmp_path, layers=["1"])).finish())[1])


@pytest.mark.parametrize("shown", ["show", "ids", "none"])
def test_teachers_leave_the_store_as_far_as_images_may(
    taught_run: "Run", new_run: NewRun, tmp_path: Path, shown: str
) -> None:
    made = new_run({**taught_run.at(str(tmp_path / "store")).tree, "report": {"training_images": shown}})
    write_report(made.job.store, made.plan.made(), created="today", reused=frozenset())
    folder = tmp_path / "store" / "reports" / "mlp"
    text, file = (folder / "tracing.html").read_text(), folder / "tables" / "suspect_teachers.parquet"
    assert file.is_file() == (shown != "none")
    assert ("Taught it " in text) == (shown != "none")
    if shown == "none":
        return
    suspects, teachers = tables(taught_run)
    assert len(pd.read_parquet(file)) == len(teachers)
    listed = pd.read_parquet(folder / "tables" / "suspects.parquet").iloc[0]
    mine = teachers[teachers["sample_id"] == suspects["sample_id"].iloc[0]]
    assert listed["taught_otherwise"] == ", ".join(map(str, mine["example_id"]))
    assert listed["other"] == mine["other"].iloc[0]
    section = text.partition('<h2 id="suspects">')[2].partition("</section>")[0]
    assert section.count("<use") == (5 + len(teachers[teachers["sample_id"].isin(suspects["sample_id"][:5])])) * (
        shown == "show"
    )
    assert f"sample {mine['example_id'].iloc[0]}<" in section
