"""A run with nothing to do over many stages: one request for each completion record, many of them under way at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from benchmarks.requests import many_stages, pretend_finished
from configs.load import load_config
from flows.command import answer
from flows.plan import make_plan
from storage.stores import open_store

if TYPE_CHECKING:
    from tests.s3.conftest import Server

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(600)]

Reaching = Callable[["Server"], AbstractContextManager[pytest.MonkeyPatch]]
Spoilt = Callable[..., AbstractContextManager[tuple["Server", dict[str, int]]]]

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
        answer(str(source), [], wait=True, say=said.append)
    assert said == [f"all {len(plan.stages)} stages are complete in {far}"]
    assert len(plan.stages) <= counts["requests"] <= len(plan.stages) + FURTHER
    assert counts["GET"] == counts["requests"]  # nothing is written
    assert counts["most at once"] > 1
