"""Run records: written before anything starts, and again with how it ended."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from storage.runs import records
from storage.stores import Store, StoreError
from tasks.engine.records import recorded

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def wrapped_stop() -> Exception:
    """Return an error as libraries raise it when a stop reaches their code."""
    error = RuntimeError("Error calling function")
    error.__cause__ = RuntimeError("within")
    error.__cause__.__context__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "done"),
        (KeyboardInterrupt(), "interrupted"),
        (wrapped_stop(), "interrupted"),
        (ValueError("two\nlines"), "failed"),
        (SystemExit(3), "failed"),
    ],
)
def test_the_outcome_of_a_run(tiny_tree: Tree, new_run: NewRun, error: BaseException | None, outcome: str) -> None:
    run = new_run(tiny_tree)
    store = run.job.store
    try:
        with recorded(run.job.store, run.config, run.plan.stages):
            (before,) = records(store, "tiny")
            if error is not None:
                raise error
    except (KeyboardInterrupt, RuntimeError, ValueError, SystemExit) as raised:
        assert raised is error  # noqa: PT017  # the same object goes on
    (after,) = records(store, "tiny")
    assert (before.document["outcome"], after.document["outcome"]) == ("running", outcome)
    assert after.document.get("error") == (
        "two lines" if isinstance(error, ValueError) else after.document.get("error")
    )
    assert [stage["path"] for stage in after.stages] == [spec.path for spec in run.plan.stages]
    assert after.document["config"]["name"] == "tiny"
    assert len(after.document["code"]["layerlore source"]) == 12
    assert set(after.document["machine"]) == {"host", "python", "platform", "cores", "pid"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("the reason")])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), StoreError("s3://bucket/x: gone")])
def test_a_record_that_cannot_be_closed_hides_no_error(
    tiny_tree: Tree, new_run: NewRun, error: BaseException, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tiny_tree)

    def full(*_: object) -> None:
        raise fault

    def stop() -> None:
        monkeypatch.setattr(Store, "write", full)
        raise error

    with pytest.raises(type(error)) as caught, recorded(run.job.store, run.config, run.plan.stages):
        stop()
    assert caught.value is error


def test_every_attempt_has_a_record_of_its_own(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(tiny_tree)
    for _ in range(3):
        with recorded(run.job.store, run.config, run.plan.stages):
            pass
    found = records(run.job.store, "tiny")
    assert len(found) == 3
    assert [r.time for r in found] == sorted(r.time for r in found)


def test_the_error_of_a_record_has_no_password(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(tiny_tree)
    error = ValueError("s3://user:word@host/x: gone")
    with pytest.raises(ValueError, match="gone"), recorded(run.job.store, run.config, run.plan.stages):
        raise error
    (record,) = records(run.job.store, "tiny")
    assert "gone" in record.document["error"]
    assert "word" not in record.document["error"]
