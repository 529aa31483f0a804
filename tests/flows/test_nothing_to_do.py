"""A deployed run that finds everything there joins no cluster, makes no record and does not write a report again."""

from typing import TYPE_CHECKING

from configs.load import check_config
from flows.plan import make_plan
from flows.report import report
from flows.session import session_of
from storage.runs import records
from storage.stores import Store
from tasks.cluster.parallel import SerialPool
from tasks.steps.report import write_report

if TYPE_CHECKING:
    from tests.conftest import Run

ABSENT = {"kind": "address", "address": "tcp://127.0.0.1:9"}


def everything(store: Store) -> dict[str, bytes]:
    """Every object of a store."""
    return {name: store.read(name) for name in store.files("")}


def test_a_run_with_nothing_to_do_needs_no_cluster_and_changes_nothing(copied_run: "Run") -> None:
    tree, store = {**copied_run.tree, "store": copied_run.config.store, "cluster": ABSENT}, copied_run.job.store
    with session_of(tree, []) as session:
        assert session.whole
        assert isinstance(session.job.pool, SerialPool)
    assert len(records(store, "tiny")) >= 1  # so that gc keeps the stages
    answers = make_plan(check_config(tree, "config")).made()
    place = write_report(store, answers, created="now", reused=session.reused)
    before = everything(store)
    assert report.fn(tree) == store.path(place)
    assert everything(store) == before
