"""A scheduler that goes away: waited for, reported in one line, its partitions asked for again."""

from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.cluster import rejoining
from tasks.cluster.rejoining import ClusterError, LostError, fetched, rejoin


@dataclass
class FakeClient:
    """A client that has one status after the other."""

    statuses: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@dataclass
class FakeFuture:
    """A future that has ended somehow."""

    status: str
    outcome: Any = None  # Any: a result or an error

    def exception(self) -> Exception:
        assert isinstance(self.outcome, Exception)
        return self.outcome

    def result(self) -> Any:  # Any: as Dask's
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr(rejoining, "LOOK", 0.001)


def test_a_client_waits_for_its_scheduler() -> None:
    assert not rejoin(FakeClient(["running"]))
    assert rejoin(FakeClient(["connecting", "connecting", "connecting", "running"]))


def test_a_scheduler_that_stays_away_is_one_line() -> None:
    text = r"^cluster: expected the lost scheduler back within 30 s, found none; start it and run again$"
    for statuses in (["connecting", "connecting", "closed"], ["closed"]):
        with pytest.raises(ClusterError, match=text):
            rejoin(FakeClient(statuses))


def test_results_and_errors_of_partitions_come_through() -> None:
    assert fetched(FakeFuture("finished", 7)) == 7
    with pytest.raises(ValueError, match="the partition's own"):
        fetched(FakeFuture("error", ValueError("the partition's own")))


@pytest.mark.parametrize(
    "future",
    [
        FakeFuture("cancelled"),
        FakeFuture("lost"),
        FakeFuture("finished", OSError("stream is closed")),
        FakeFuture("finished", CancelledError("scheduler-connection-lost")),
    ],
)
def test_what_is_lost_with_a_scheduler_may_be_asked_for_again(future: FakeFuture) -> None:
    with pytest.raises(LostError) as caught:
        fetched(future)
    assert isinstance(caught.value, ConnectionError)  # what a stage is tried again for
