"""A kill of each kind under a small run: the run, a worker, the scheduler, Prefect's server, the S3 server.

Each falls into another kind of stage. `python -m benchmarks.kills` does the same everywhere and as often as wanted.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.kills.campaign import Campaign, Setting
from benchmarks.kills.moments import REPORT, START
from benchmarks.kills.runs import Commands
from benchmarks.kills.servers import SWIFT, Servers
from tests.conftest import tiny_config
from tests.deployments.conftest import clean_environment

SOON = 0.2  # seconds after a stage begins, at most: short, so that the run cannot be over by then

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]  # boto3's sockets


@dataclass
class Bench:
    """A Prefect server, and what else a kill needs, started once; the bytes of an undisturbed run."""

    folder: Path
    servers: Servers
    commands: Commands
    bucket: str = ""
    address: str = ""

    def campaign(self, target: str) -> Campaign:
        """Return a campaign that kills `target`."""

        def new_store(name: str) -> str:
            return f"s3://{self.bucket}/{name}" if target == "s3" else str(self.folder / f"{target}-{name}")

        return Campaign(target, self.commands, self.servers, new_store, random.Random(target), print)

    def setting(self, cluster: str) -> Setting:
        """Return the small run, its partitions spread by `cluster`."""
        return Setting("small", str(self.folder / "small.yaml"), "here", cluster, (f"cluster={cluster}",))


def small_tree() -> dict[str, object]:
    """Return the tiny config, asking less."""
    tree = tiny_config("lore")
    asked = {**tree["interpretation"], "selectors": {"moderate": {}}, "budgets": [0.5]}
    return {**tree, "interpretation": asked}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "small.yaml").write_text(yaml.safe_dump(small_tree(), sort_keys=False))
    environment = clean_environment(
        PREFECT_HOME=str(folder / "prefect-home"), PREFECT_SERVER_ANALYTICS_ENABLED="false", COLUMNS="200", NO_COLOR="1"
    )
    servers, before = Servers(folder, environment), dict(os.environ)
    opened = Bench(folder, servers, Commands(folder, environment))
    try:
        if SWIFT.exists():
            opened.bucket = servers.s3().make_bucket()
        servers.prefect()
        yield opened
    finally:
        opened.commands.close()
        servers.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> Campaign:
    """A campaign that knows what a run makes."""
    made = bench.campaign("run")
    made.reference(bench.setting("{kind: serial}"))
    return made


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        *(("run", "training"), ("prefect", "selection"), ("worker", "activations"), ("scheduler", "features")),
        pytest.param("s3", "evaluation", marks=pytest.mark.s3),
    ],
)
def test_a_kill_costs_no_byte(target: str, kind: str, bench: Bench, undisturbed: Campaign) -> None:
    if target == "s3" and not bench.bucket:
        pytest.skip("needs OpenStack Swift: python -m venv .venv-swift && .venv-swift/bin/pip install 'swift==2.38.*'")
    if target in ("worker", "scheduler") and not bench.address:
        bench.address = bench.servers.dask()
    cluster = (
        f"{{kind: address, address: {bench.address!r}}}" if target in ("worker", "scheduler") else "{kind: serial}"
    )
    campaign, setting = bench.campaign(target), bench.setting(cluster)
    (lengths,) = undisturbed.lengths.values()
    campaign.expected, campaign.aim = undisturbed.expected, frozenset({kind})
    # Not the measured times: a run that is several times faster than the first would be over before its moment.
    campaign.lengths[setting] = dict.fromkeys(lengths, SOON)
    (kill,) = campaign.run([setting], 1)
    assert kill.stage not in (START, REPORT)
    assert kill.problems == []
    assert kill.same_bytes
    assert kill.waited == 0.0  # no process waits for the claim of a dead one on its machine
