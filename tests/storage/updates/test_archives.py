from pathlib import Path

import pytest

from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage
from storage.stores import StoreError, open_store
from storage.updates.archives import Segment, archive_segments, check_free, find_archives, keep_chain, sweep_files

SPEC = StageSpec("updates", 1, {"kind": "dense", "checkpoint_every": 5, "layers": [{"name": "a"}]})


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return begin_stage(open_store(str(tmp_path / "s"), create=True), SPEC, Layout(0, open_ended=True))


def write(stage: Stage, number: int, parent: str, checkpoint: str) -> None:
    """Write segment `number` of two steps, with a chunk deep inside its folder."""
    with stage.partition(number) as part:
        folder = f"segment-{number:06d}-{checkpoint}"
        part.write_file(f"{folder}/updates/a/c/0", b"x")
        part.write_file(checkpoint, b"y")
        recording = {"kind": "dense", "folder": folder, "start": 2 * number, "stop": 2 * number + 2}
        part.numbers.update(parent=parent, checkpoint=checkpoint, recording=recording)
        if not number:
            part.numbers["initial"] = "start"


def files(stage: Stage) -> list[str]:
    return sorted(stage.store.files(f"{stage.spec.path}/files"))


def test_a_whole_chain_is_kept_and_told(stage: Stage) -> None:
    for number, (parent, own) in enumerate([("", "k0"), ("k0", "k1"), ("k1", "k2")]):
        write(stage, number, parent, own)
    before = files(stage)
    chain = keep_chain(stage)
    assert [marker["numbers"]["checkpoint"] for marker in chain] == ["k0", "k1", "k2"]
    sweep_files(stage, chain)
    assert files(stage) == before
    assert archive_segments(stage.seal({"steps": 6})) == [
        Segment(0, 0, 2, "segment-000000-k0", "start", "k0", "dense"),
        Segment(1, 2, 4, "segment-000001-k1", "k0", "k1", "dense"),
        Segment(2, 4, 6, "segment-000002-k2", "k1", "k2", "dense"),
    ]


@pytest.mark.parametrize("broken", ["parent", "marker", "hole"])
def test_what_does_not_follow_is_dropped_with_its_files(stage: Stage, broken: str) -> None:
    write(stage, 0, "", "k0")
    write(stage, 1, "other" if broken == "parent" else "k0", "k1")
    write(stage, 2, "k1", "k2")
    marker = f"{stage.spec.path}/markers/000001.json"
    if broken == "marker":
        stage.store.write(marker, b"{}")
    elif broken == "hole":
        stage.store.remove(marker)
    stage.store.write(f"{stage.spec.path}/files/segment-000000-k0/updates/a/c/1", b"of nobody")
    chain = keep_chain(stage)
    assert [marker["numbers"]["checkpoint"] for marker in chain] == ["k0"]
    assert stage.store.names(f"{stage.spec.path}/markers") == ["000000.json"]
    sweep_files(stage, chain)
    assert files(stage) == ["k0", "segment-000000-k0/updates/a/c/0"]


def test_only_the_same_recording_goes_on(stage: Stage) -> None:
    check_free(stage.store, SPEC)
    assert find_archives(stage.store) == [SPEC.path]
    for change, text in (
        ({"checkpoint_every": 6}, "checkpoint_every 5, here 6"),
        ({"layers": [{"name": "a"}, {"name": "b"}]}, "layers a, here a, b"),
    ):
        other = StageSpec("updates", 1, {**SPEC.parameters, **change})
        with pytest.raises(StoreError, match=f"expected the archive of this recording, found one with {text}"):
            check_free(stage.store, other)
    with pytest.raises(StoreError, match="another version of the format"):
        check_free(stage.store, StageSpec("updates", 2, SPEC.parameters))
    write(stage, 0, "", "k0")
    stage.seal({"steps": 2})
    with pytest.raises(StoreError, match="found a finished one of 2 steps"):
        check_free(stage.store, SPEC)
