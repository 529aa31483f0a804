"""What a run of many coresets asks a store for that is not local: as much for each, and nothing twice."""

from pathlib import Path

import pytest

from benchmarks.requests import many_stages
from configs.schema import Config
from flows.plan import make_plan
from storage import claims, partitions
from storage.memory import remembering
from storage.stores import open_store
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Job
from tests.conftest import SilentObserver
from tests.counting import METADATA, Requests, counted
from tests.plans import complete_plan

SHARD = r"/data\.zarr/\w+/c/"
# Of a stage of one partition: its claim, its completion record, its partition record, the listing to seal it.
CLAIM, NOTE, RECORD, LISTING = 5, 4 + 1, 5, 1
ARRAYS = {"selection": 2, "features": 1, "evaluation": 2}
INPUTS = {"features": 1 + 1, "evaluation": 1 + 1}  # of another stage of the coreset: metadata and a shard


def made(folder: Path, draws: int) -> Requests:
    """Make a run of some coresets, of three stages each, and return its requests."""
    plan = make_plan(Config.model_validate(many_stages("s3://bucket/many", 3 * draws)))
    store = remembering(open_store(f"memory://bucket/{folder.name}-{draws}", create=True))
    with counted() as requests:
        complete_plan(plan, Job(store, SerialPool(), SilentObserver()))
    return requests


def test_each_coreset_costs_the_same_and_reads_its_inputs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 600.0)  # however slow this machine is
    monkeypatch.setattr(partitions, "LOOK", 600.0)
    few, many = (made(tmp_path, draws) for draws in (2, 6))
    # Metadata of the group and of each array are looked for, written and read to be sealed; shards are written.
    arrays = sum(3 * (1 + count) + count for count in ARRAYS.values())
    each = (CLAIM + NOTE + RECORD + LISTING) * len(ARRAYS) + arrays + sum(INPUTS.values())
    assert len(many.seen) - len(few.seen) == 4 * each
    for requests in (few, many):
        assert requests.most("read", SHARD) == 1  # also of the activations, which all coresets read
        assert requests.most("read", METADATA) <= 2  # to be sealed, and by the first reader
        assert requests.count("zarr get") == 0
