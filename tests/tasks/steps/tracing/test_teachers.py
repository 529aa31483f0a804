"""The teachers of suspects: what each example added to another class's logit less the label's, in a plain loop."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from tasks.steps.report import write_report
from tasks.steps.tracing.subjects import other_classes, read_suspects
from tasks.steps.tracing.teachers import KEPT, read_teachers, score_of
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Doubles, Plain, images, mlp_tree
from tests.tasks.steps.tracing.loops import H, Loop, counter_tree

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
    return read_suspects(run.job.store, trace.suspects), read_teachers(run.job.store, trace.teachers[0])


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


@pytest.fixture(scope="module")
def derived_run(tmp_path_factory: pytest.TempPathFactory, new_run: NewRun) -> "Run":
    """A finished run with every score, one example a step: not to be changed."""
    tree = counter_tree(tmp_path_factory.mktemp("derived") / "store")
    tree["data"]["digits"]["noise"] = {"share": 0.2}
    del tree["tracing"]["evaluation"]
    tree["tracing"]["suspects"] = 3
    return new_run(tree).finish()


def by_score(run: "Run", score: str) -> pd.DataFrame:
    """The teachers by a score."""
    spec = next(spec for spec in traces(run.plan)[0].teachers if score_of(spec) == score)
    return read_teachers(run.job.store, spec)


def answers(loop: Loop, suspects: pd.DataFrame) -> tuple[torch.Tensor, Callable[[torch.nn.Module], torch.Tensor]]:
    """The other classes of suspects, and a function of a network: the other class's logit less the label's."""
    x = images(suspects["sample_id"].to_numpy()).double()
    given = torch.tensor(suspects["label_given"].to_numpy(np.int64))
    logits = loop.trained(torch.ones(20, dtype=torch.float64))(x).detach()
    other = logits.scatter(1, given[:, None], -torch.inf).argmax(1)

    def value(model: torch.nn.Module) -> torch.Tensor:
        made = model(x)
        found: torch.Tensor = made.gather(1, other[:, None])[:, 0] - made.gather(1, given[:, None])[:, 0]
        return found

    return other, value


def check_teachers(
    found: pd.DataFrame, loop: Loop, suspects: pd.DataFrame, others: torch.Tensor, sums: Doubles
) -> None:
    """Compare teachers with sums (suspects, N)."""
    ids = loop.rows["id"].to_numpy(np.int64)
    for q, suspect in enumerate(suspects["sample_id"].tolist()):
        mine, best = found[found["sample_id"] == suspect], np.argsort(-sums[q])[:KEPT]
        best = best[sums[q][best] > 0]
        assert mine["example_id"].tolist() == ids[best].tolist()
        assert set(mine["other"]) <= {int(others[q])}
        np.testing.assert_allclose(mine["value"], sums[q][best], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(mine["share"], sums[q][best] / sums[q][sums[q] > 0].sum(), rtol=1e-3, atol=1e-6)


def test_teachers_by_derivatives_equal_central_differences(derived_run: "Run") -> None:
    loop, suspects = Loop(derived_run), tables(derived_run)[0].head(3)
    others, value = answers(loop, suspects)
    sums = np.zeros((3, 20))
    for position in range(20):
        ends = []
        for sign in (1, -1):
            weights = torch.ones(20, dtype=torch.float64)
            weights[position] += sign * H
            ends.append(value(loop.trained(weights)).detach().numpy())
        sums[:, position] = (ends[0] - ends[1]) / (2 * H)
    assert (sums > 0).any(axis=1).all()
    check_teachers(by_score(derived_run, "counterfactual"), loop, suspects, others, sums)


def test_teachers_by_tracin_sum_what_each_step_adds(derived_run: "Run") -> None:
    loop, suspects = Loop(derived_run), tables(derived_run)[0].head(3)
    others, value = answers(loop, suspects)
    sums, rate = np.zeros((3, 20)), loop.settings["optimizer"]["lr"]

    def look(model: torch.nn.Module, step: int) -> None:
        (position,) = loop.batches[step].tolist()
        parameters = list(model.parameters())
        own = torch.autograd.grad(F.cross_entropy(model(loop.x[[position]]), loop.y[[position]]), parameters)
        for q in range(3):
            theirs = torch.autograd.grad(value(model)[q], parameters)
            sums[q, position] -= rate * sum(float((a * b).sum()) for a, b in zip(own, theirs, strict=True))

    loop.trained(torch.ones(20, dtype=torch.float64), look)
    check_teachers(by_score(derived_run, "tracin"), loop, suspects, others, sums)


def test_the_page_and_the_tables_have_the_teachers_of_each_score(derived_run: "Run") -> None:
    write_report(derived_run.job.store, derived_run.plan.made(), created="today", reused=frozenset())
    folder = Path(derived_run.job.store.url) / "reports" / "mlp"
    text, table = (folder / "tracing.html").read_text(), pd.read_parquet(folder / "tables" / "suspect_teachers.parquet")
    assert list(dict.fromkeys(table["by"])) == ["logit", "counterfactual", "tracin"]
    for score, words in (("counterfactual", ", counterfactual"), ("tracin", ", TracIn")):
        suspects = by_score(derived_run, score)["sample_id"].nunique()
        assert len(re.findall(rf"Taught it [0-9] instead of [0-9]{words}", text)) == suspects
    listed = pd.read_parquet(folder / "tables" / "suspects.parquet").iloc[0]
    mine = by_score(derived_run, "logit")
    mine = mine[mine["sample_id"] == listed["sample_id"]]
    assert listed["taught_otherwise"] == ", ".join(map(str, mine["example_id"]))


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
