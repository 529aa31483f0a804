"""The report: its tables are the stages' values, and it knows when it is out of date."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from flows.plan import make_plan
from storage.claims import StageHeldError, claim
from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.interpretation.results import class_table, coreset_table
from tasks.steps.interpretation.selection import kept_positions
from tasks.steps.report import report_is_current, write_report
from tests.plans import cells

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain


@pytest.fixture
def written(copied_run: "Run") -> Path:
    """Return the folder of the report of a copy of the tiny run."""
    place = write_report(copied_run.job.store, copied_run.plan.made(), created="a time", reused=frozenset())
    assert place == "reports/tiny/index.html"
    return Path(copied_run.config.store, place).parent


def test_the_class_table_holds_the_values_of_the_stages(written: Path, finished_run: "Run") -> None:
    table = pd.read_parquet(written / "tables" / "classes.parquet")
    assert len(table) == 10 * len(cells(finished_run.plan))
    for cell in cells(finished_run.plan):
        stage = open_finished(finished_run.job.store, cell.evaluation)
        rows = table[
            (table["selector"] == cell.selector) & (table["repeat"] == cell.repeat) & (table["budget"] == cell.budget)
        ]
        found = rows[stage.summary["measures"]].to_numpy(float)
        np.testing.assert_array_equal(found, stage.read("values"))
        np.testing.assert_array_equal(rows["label"], stage.read("label"))
        assert (rows["n_class"] == 12).all()
        assert (rows["n_kept"] == 12 * cell.budget).all()


def test_means_over_classes_are_those_of_the_class_table(written: Path) -> None:
    classes, budgets = (pd.read_parquet(written / "tables" / f"{name}.parquet") for name in ("classes", "by_budget"))
    keys = ["network", "seed", "interpreter", "selector", "repeat", "budget"]
    means = classes.groupby(keys)[["distance_0", "accuracy", "agreement"]].mean().reset_index()
    both = budgets.merge(means, on=keys, suffixes=("", "_by_hand"))
    assert len(both) == len(budgets) == 5
    np.testing.assert_allclose(both["phi_0"], both["distance_0"], rtol=1e-12)
    np.testing.assert_allclose(both["accuracy"], both["accuracy_by_hand"], rtol=1e-12)


def test_coresets_are_given_as_sample_ids(written: Path, finished_run: "Run", plain: "dict[str, Plain]") -> None:
    table = pd.read_parquet(written / "tables" / "coresets.parquet")
    pd.testing.assert_frame_equal(pd.read_csv(written / "tables" / "coresets.csv"), table)
    cell = next(c for c in cells(finished_run.plan) if c.selector == "moderate" and c.budget == 0.5)
    stage = open_finished(finished_run.job.store, cell.selection)
    at = (table["selector"] == "moderate") & (table["label"] == 4) & (table["budget"] == 0.5)
    rows = table[at].sort_values("rank")
    np.testing.assert_array_equal(rows["id"], plain["train"].ids[kept_positions(stage)[4]])
    sizes = table.groupby(["selector", "repeat", "budget"]).size().to_dict()
    whole = {("moderate", 0, 1.0): 120, ("random", 0, 1.0): 120}
    assert sizes == {("moderate", 0, 0.5): 60, ("random", 0, 0.5): 60, ("random", 1, 0.5): 60, **whole}
    assert set(table["manifest"]) == {finished_run.plan.shared.manifests["digits"].key}


def test_the_site_is_whole_and_known_to_be_current(written: Path, copied_run: "Run") -> None:
    store, answers = copied_run.job.store, copied_run.plan.made()
    assert "small" in (written / "index.html").read_text(encoding="utf-8")
    assert report_is_current(store, answers)
    other = make_plan(copied_run.config.model_copy(update={"name": "tiny", "seeds": (1,)})).made()
    assert not report_is_current(store, other)
    (written / "made-from").unlink()
    assert not report_is_current(store, answers)


def test_a_report_that_breaks_off_is_not_current(
    written: Path, copied_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    store, answers = copied_run.job.store, copied_run.plan.made()
    original, calls = type(store).write, 0

    def fail(self: Any, path: str, data: bytes) -> None:  # Any: a store
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        original(self, path, data)

    monkeypatch.setattr(type(store), "write", fail)
    with pytest.raises(OSError, match="No space left"):
        write_report(store, answers, created="later", reused=frozenset())
    assert not report_is_current(store, answers)


def test_two_who_write_a_report_at_once_take_turns(copied_run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    write, writers = Store.write, list[int]()

    def slow(store: Store, path: str, data: bytes | memoryview) -> None:
        writers.append(threading.get_ident())
        time.sleep(0.02)  # long enough for the other to come between
        write(store, path, data)

    monkeypatch.setattr(Store, "write", slow)
    store, answers = copied_run.job.store, copied_run.plan.made()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(write_report, store, answers, created="a time", reused=frozenset()) for _ in range(2)]
        assert {done.result() for done in both} == {"reports/tiny/index.html"}
    assert len({*writers}) == 2
    assert sum(first != second for first, second in pairwise(writers)) == 1
    assert report_is_current(store, answers)


def test_who_else_writes_the_report_is_told_and_waited_for_if_asked(copied_run: "Run") -> None:
    store, answers, messages = copied_run.job.store, copied_run.plan.made(), list[str]()
    with ExitStack() as held:
        held.enter_context(claim(store, "reports/tiny", "another run"))
        with pytest.raises(StageHeldError, match="reports-tiny is held by another run"):
            write_report(store, answers, created="a time", reused=frozenset(), wait=False)
        assert not report_is_current(store, answers)

        def say(text: str) -> None:
            messages.append(text)
            held.close()

        write_report(store, answers, created="a time", reused=frozenset(), say=say)
    assert [text.partition(" (")[0] for text in messages] == ["reports-tiny is held by another run"]
    assert report_is_current(store, answers)


def test_tables_are_one_row_per_class_and_cell(finished_run: "Run") -> None:
    table = class_table(finished_run.job.store, cells(finished_run.plan))
    keys = ["network", "seed", "interpreter", "selector", "repeat", "budget", "label"]
    assert not table.duplicated(keys).any()
    ids = coreset_table(finished_run.job.store, cells(finished_run.plan))
    assert ids.groupby(["selector", "repeat", "budget", "label"])["id"].nunique().isin([6, 12]).all()
