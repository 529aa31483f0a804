"""Many stages on S3: one request for each completion record of a run with nothing to do, and many under way at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from benchmarks.requests import make_small, many_stages, pretend_finished, verify_small
from configs.load import load_config
from flows.command import Manner, answer
from flows.plan import make_plan
from storage import claims, partitions
from storage.stores import CONNECTIONS, open_store

if TYPE_CHECKING:
    from tests.s3.conftest import Server

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(600)]

Reaching = Callable[["Server"], AbstractContextManager[pytest.MonkeyPatch]]
Spoilt = Callable[..., AbstractContextManager[tuple["Server", dict[str, int]]]]

LISTINGS = 4  # of the store's kinds and of the stages of each
STAGES, FURTHER = 2000, 8  # what is asked for besides notes: the format, the last record, what the report is made from


@pytest.mark.parametrize("server", ["moto"], indirect=True, scope="module")
def test_a_run_with_nothing_to_do_reads_each_note_once_and_many_at_once(
    far: str, spoilt: Spoilt, reaching: Reaching, tmp_path: Path
) -> None:
    source, said = tmp_path / "many.yaml", list[str]()
    source.write_text(yaml.safe_dump(many_stages(far, STAGES), sort_keys=False))
    plan = make_plan(load_config(str(source)))
    assert abs(len(plan.stages) - STAGES) < 10
    pretend_finished(plan, open_store(far, create=True))
    with spoilt("--share", 0, "--delay", 0.02) as (proxy, counts), reaching(proxy):
        answer(str(source), [], Manner(), said.append)
    assert said == [f"all {len(plan.stages)} stages are complete in {far}"]
    assert len(plan.stages) <= counts["requests"] <= len(plan.stages) + FURTHER
    assert counts["GET"] == counts["requests"]  # nothing is written
    assert counts["most at once"] > 1


CLAIMED, MADE, VERIFIED = 5 + 7, 5 + 7 + 10, 5  # requests of a stage: its claim, and what else it asks for


@pytest.mark.parametrize("server", ["moto"], indirect=True, scope="module")
def test_stages_of_one_kind_are_claimed_sealed_and_verified_together(
    far: str, spoilt: Spoilt, reaching: Reaching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no delay to speak of, 64 claims one after the other would have one request under way at a time."""
    monkeypatch.setattr(claims, "RENEWAL", 600.0)  # however slow this machine is
    monkeypatch.setattr(partitions, "LOOK", 600.0)
    store, stages = open_store(far, create=True), 64
    for work, each in ((partial(make_small, store, stages, 0), CLAIMED), (partial(make_small, store, stages, 1), MADE)):
        with spoilt("--share", 0, "--delay", 0.02) as (proxy, counts), reaching(proxy):
            work()
        assert counts["requests"] == each * stages
        assert counts["most at once"] > CONNECTIONS // 2
    with spoilt("--share", 0, "--delay", 0.02) as (proxy, counts), reaching(proxy):
        verify_small(store)
    assert 0 <= counts["requests"] - VERIFIED * stages <= LISTINGS
    assert counts["most at once"] > CONNECTIONS // 2
