"""What the life of stages asks a store for, as a function of their number and that of their partitions."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage import partitions
from storage.layouts import ArrayLayout, Layout
from storage.memory import remembering
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import open_store
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Job, complete
from tasks.engine.step import Step, Work
from tests.counting import MARKER, METADATA, NOTE, Requests, counted
from tests.tasks.engine.two_stages import Heard, size

SHARD = r"/data.zarr/x/c/\d+$"
STEPS = 2  # kinds of stage: the second kind reads the first


def step_of(n_partitions: int) -> Step:
    """Return a kind of stage of so many partitions of two rows each; none of its values is the fill value."""
    layout = Layout(n_partitions, {"x": ArrayLayout((2 * n_partitions,), "float32", ("n",), 2, 2)})

    def partition(work: Work, number: int) -> None:
        start, stop = layout.arrays["x"].span(number)
        inputs = work.stage.spec.inputs
        values = open_finished(work.stage.store, inputs["from"]).read("x", start, stop) if inputs else np.ones(2)
        with work.stage.partition(number) as part:
            part.write("x", np.asarray(values, np.float32))

    return Step("any", 1, lambda *_: layout, partition, size)


def made(job: Job, step: Step, n_stages: int) -> Requests:
    """Make so many stages, a half of which reads the other half, and return the requests."""
    first = [StageSpec("first", 1, {"start": number}) for number in range(n_stages // STEPS)]
    second = [StageSpec("second", 1, inputs={"from": spec}) for spec in first]
    with counted() as requests:
        complete(job, step, first)
        complete(job, step, second)
    return requests


@pytest.mark.parametrize("kind", ["local", "far"])
@pytest.mark.parametrize(("s", "p"), [(2, 1), (4, 3), (6, 2)])
def test_requests_of_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, s: int, p: int) -> None:
    """`s` stages of `p` partitions: made, then found complete by the same run and by another."""
    monkeypatch.setattr(partitions, "LOOK", 60.0)  # however slow this machine is
    url = str(tmp_path) if kind == "local" else f"memory://bucket/{tmp_path.name}"
    plain = open_store(url, create=True)
    job, step = Job(remembering(plain), SerialPool(), Heard(), "a test"), step_of(p)
    requests = made(job, step, s)
    # Whether a stage is complete: before its claim, under it, and before it is sealed. What was sealed is known.
    assert requests.count("miss", NOTE) == 3 * s
    assert requests.count("read", NOTE) == 0
    assert requests.count("write", NOTE) == s
    # Looks for a partition record: at begin, before the first write, before the record; read when the stage is sealed.
    assert requests.count("miss", MARKER) == 3 * s * p
    assert requests.count("read", MARKER) == requests.count("write", MARKER) == s * p
    assert requests.most("read", MARKER) == 1
    # The metadata of group and array are read to seal; of the array also by the first partition that reads it.
    assert requests.count("read", METADATA) == 2 * s + s // STEPS
    # So are small shards on S3; they are read whole, without Zarr.
    assert requests.count("read", SHARD) == (s // STEPS * p if kind == "far" else 0)
    assert (requests.count("zarr get") > 0) == (kind == "local")
    assert requests.count("size") == 0
    assert requests.count("names", "/markers$") == s  # to seal; a new stage has no records when it is begun
    # A claim is read before its record is written and after, and before it is removed; a lock is not a request.
    claims = {verb: requests.count(verb, "^_claims/") for verb in ("miss", "write", "read", "remove_object")}
    assert claims == (
        {"miss": s, "write": s, "read": 2 * s, "remove_object": s} if kind == "far" else dict.fromkeys(claims, 0)
    )
    # The metadata of group and array are looked for and written, each once.
    assert requests.count("miss", METADATA) == requests.count("write", METADATA) == 2 * s
    # A stage takes 11 requests besides its claim: notes, metadata and listings; a partition 6 besides its shards.
    ours = sum(not verb.startswith("zarr") and re.search(SHARD, path) is None for verb, path in requests.seen)
    assert ours == (16 if kind == "far" else 11) * s + 6 * s * p + s // STEPS
    for path in {path.partition("/markers/")[0] for verb, path in requests.seen if re.search(NOTE, path)}:
        writes = [name for verb, name in requests.seen if verb == "write" and name.startswith(f"{path}/")]
        assert re.search(NOTE, writes[-1])  # the completion record comes last
    assert made(job, step, s).seen == []
    again = made(replace(job, store=remembering(plain)), step, s)
    assert again.count("read", NOTE) == len(again.seen) == s
    assert again.most("read", NOTE) == 1


def test_a_stage_that_goes_on_reads_its_old_markers_once(tmp_path: Path) -> None:
    job, step = Job(remembering(open_store(str(tmp_path), create=True)), SerialPool(), Heard(), "a test"), step_of(4)
    made(job, step, STEPS)
    second = StageSpec("second", 1, inputs={"from": StageSpec("first", 1, {"start": 0})})
    job.store.remove(f"{second.path}/markers/complete.json")
    job.store.remove(f"{second.path}/markers/000002.json")
    with counted() as requests:
        complete(replace(job, store=remembering(open_store(str(tmp_path)))), step, [second])
    assert requests.count("read", MARKER) == 4
    assert requests.most("read", MARKER) == 1
