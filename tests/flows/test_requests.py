"""What commands ask a store of S stages and P partitions for."""

from typing import TYPE_CHECKING

import pytest
import yaml
from typer.testing import CliRunner

from flows import cli, command
from flows.progress import stage_states
from storage.stages import open_finished
from storage.stores import FORMAT_FILE, open_store
from tests.counting import MARKER, METADATA, NOTE, Requests, counted
from tests.plans import cells

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Run


@pytest.fixture
def config(copied_run: "Run", tmp_path: "Path") -> str:
    """The config file of a finished run."""
    place = tmp_path / "config.yaml"
    place.write_text(yaml.safe_dump({**copied_run.tree, "store": copied_run.config.store}, sort_keys=False))
    return str(place)


def asked(*words: str) -> Requests:
    """Run a command and return its requests."""
    with counted() as requests:
        result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == 0, result.output
    return requests


def partitions_of(run: "Run") -> int:
    """Return how many partitions all stages of a run have."""
    return sum(open_finished(run.job.store, spec).layout.partitions for spec in run.plan.stages)


def test_commands_read_each_note_once_and_markers_where_they_need_them(copied_run: "Run", config: str) -> None:
    s, p = len(copied_run.plan.stages), partitions_of(copied_run)
    coresets = {cell.selection.path for cell in cells(copied_run.plan)}  # the whole data set is one for all selectors
    found = {
        "report": asked("report", config),
        "run": asked("run", config),
        "plan": asked("plan", config),
        "status": asked("status", copied_run.config.store),
        "verify": asked("verify", copied_run.config.store),
    }
    for asker, requests in found.items():
        assert requests.count("read", NOTE) == s, asker
        assert requests.most("read", NOTE) == 1, asker
        assert requests.count("read", MARKER) == (p if asker in ("report", "verify") else 0), asker
        assert requests.most("read", MARKER) <= 1, asker
        assert [verb for verb, path in requests.seen if path == FORMAT_FILE] == ["read"], asker
        assert requests.count("zarr get", METADATA) == requests.count("zarr exists") == 0, asker
    assert found["report"].count("read", "data.zarr/order/zarr.json") == len(coresets)
    assert found["report"].most("read", METADATA) == 1
    assert found["verify"].most("read", METADATA) == 1
    for asker in ("run", "plan"):
        assert len(found[asker].seen) <= s + 7, asker  # the format, records, the manifest, what the report says
    kinds = len({spec.stage for spec in copied_run.plan.stages})
    assert found["status"].count("files") == kinds  # the sizes, by one listing for each kind
    assert len(found["status"].seen) <= s + kinds + 10


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_makes_stages_reads_the_format_once(
    copied_run: "Run", config: str, monkeypatch: pytest.MonkeyPatch, tmp_path: "Path", there: bool
) -> None:
    """A run that makes its store looks for it again before: another run may have made it since."""
    monkeypatch.setattr(command, "_flow", lambda *_: "")  # Prefect's part gets the store
    copied_run.job.store.remove(copied_run.plan.stages[-1].path)
    requests = asked("run", config, *([] if there else ["--set", f"store={tmp_path / 'new'}"]))
    verbs = [verb for verb, path in requests.seen if path == FORMAT_FILE]
    assert verbs == (["read"] if there else ["miss", "miss", "write"])


@pytest.mark.parametrize("count", [10, 200])
def test_the_states_of_missing_stages_cost_a_listing_for_each_kind(tmp_path: "Path", count: int) -> None:
    """A plan of many new stages on a store that is not local: their records, the kinds, and the stages that began."""
    store = open_store(f"memory://bucket/{tmp_path.name}", create=True)
    paths = [f"{kind}/{number:020x}" for kind in ("features", "evaluation") for number in range(count)]
    for path in (paths[0], paths[-1]):
        store.write(f"{path}/markers/000000.json", b"{}")
    store.write(f"{paths[1]}/data.zarr/zarr.json", b"{}")  # begun, without a partition
    with counted() as requests:
        states = stage_states(store, paths)
    assert {path for path, state in states.items() if state == "partial"} == {paths[0], paths[-1]}
    assert {*states.values()} == {"partial", "missing"}
    assert requests.count("names") == 2 + 3
    assert requests.count("miss", NOTE) == len(paths)
    assert len(requests.seen) == 2 * count + 2 + 3
