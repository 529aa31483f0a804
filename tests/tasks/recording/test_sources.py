import pickle
import shutil
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from storage.documents import DamagedError, encode
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, begin_stage, find_finished, marker_name, read_marker
from storage.stores import StoreError, open_store
from storage.updates import chunks
from storage.updates.archives import find_archives
from storage.updates.bits import Ints
from storage.updates.parameters import Parameter
from storage.updates.reader import read_weights
from storage.verify import verify_stage
from tasks.recording import ARCHIVES, UpdateRecorder, UpdateSource, dense, open_updates, update_source
from tasks.tracing import contributions
from tests.tasks.recording.conftest import LAYERS, Training

Archive = tuple[Path, Training]


@pytest.fixture
def source(archive: Archive) -> UpdateSource:
    return open_updates(str(archive[0]))


@pytest.fixture
def copied(archive: Archive, tmp_path: Path) -> Path:
    """A copy of the archive that a test may damage."""
    shutil.copytree(archive[0], tmp_path / "copied")
    return tmp_path / "copied"


def read_all(source: UpdateSource) -> float:
    """Read everything once."""
    total = float(sum(source.initial(layer).sum() + source.final(layer).sum() for layer in source.layers))
    for segment in source.segments():
        total += sum(float(block.dense().sum()) for block in source.blocks(segment))
    return total + len(source.ledger)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_kind_states_what_it_holds(kind: str, tmp_path: Path) -> None:
    training = Training()
    training.recorded(tmp_path / "store", 17, kind=kind)
    source = open_updates(str(tmp_path / "store"), program=training.program)
    assert source.kind == kind
    assert source.layers == LAYERS
    assert source.steps == 17
    assert list(source.exactness) == LAYERS
    for layer, stated in source.exactness.items():  # 0 but for a hybrid archive's default tolerance
        assert 0 < stated <= 1e-3 if kind == "hybrid" else stated == 0, layer
    segments = source.segments()
    assert [segment.start for segment in segments] == [0, 7, 14]
    assert [segment.stop for segment in segments] == [7, 14, 17]


def test_segments_are_read_in_any_order_and_apart(archive: Archive, source: UpdateSource) -> None:
    _, training = archive
    for segment in reversed(source.segments()):
        alone = pickle.loads(pickle.dumps((source, segment)))  # noqa: S301  # as a worker gets it
        blocks = list(alone[0].blocks(alone[1], ["8", "0"]))
        assert [block.layer for block in blocks] == ["8", "0"]
        for block in blocks:
            states = training.states[segment.start : segment.stop + 1]
            weights = torch.stack([state[f"{block.layer}.weight"] for state in states])
            assert torch.equal(block.dense(), weights[1:] - weights[:-1])
            biases = torch.stack([state[f"{block.layer}.bias"] for state in states])
            assert torch.equal(block.dense_bias(), biases[1:] - biases[:-1])


def test_a_layer_without_bias_has_none(source: UpdateSource) -> None:
    assert source.initial_bias("3") is None
    assert source.final_bias("3") is None
    assert next(iter(source.blocks(source.segments()[0], ["3"]))).dense_bias() is None


@pytest.mark.parametrize(("layer", "shape"), [("0", (5, 2, 6, 6)), ("3", (5, 4, 4, 4)), ("8", (5, 6))])
@pytest.mark.parametrize("with_bias", [False, True])
def test_blocks_project_as_contributions_do(
    archive: Archive, source: UpdateSource, layer: str, shape: tuple[int, ...], with_bias: bool
) -> None:
    model, _ = archive[1].start()
    module = model.get_submodule(layer)
    inputs = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias = source.final(layer).double(), source.final_bias(layer)
    final_bias_or_none = bias.double() if with_bias and bias is not None else None
    gammas = []
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            found = block.project(module, weight, inputs, bias=final_bias_or_none)
            changes = block.dense_bias(torch.float64) if final_bias_or_none is not None else None
            expected = contributions(
                module, weight, inputs, block.dense(torch.float64), bias=final_bias_or_none, bias_updates=changes
            )
            assert found.gamma.shape == (5, len(block.steps))
            assert torch.equal(found.gamma, expected.gamma)
            assert torch.equal(found.cosine, expected.cosine)
            gammas.append(found.gamma)
    start = source.initial_bias(layer)
    init = contributions(
        module,
        weight,
        inputs,
        source.initial(layer).double()[None],
        bias=final_bias_or_none,
        bias_updates=None if final_bias_or_none is None or start is None else start.double()[None],
    )
    total = torch.cat(gammas, 1).sum(1) + init.gamma[:, 0]  # completeness: all updates and init make ||z||^2
    np.testing.assert_allclose(total.numpy(), (init.preactivation_norm**2).numpy(), rtol=1e-12)


def test_float32_inputs_give_float32(archive: Archive, source: UpdateSource) -> None:
    model, _ = archive[1].start()
    block = next(iter(source.blocks(source.segments()[0], ["8"], members=True)))
    weight = source.final("8")
    found = block.project(model.get_submodule("8"), weight, torch.ones(2, 6), anchor=weight - source.initial("8"))
    assert found.gamma.dtype == torch.float32
    with pytest.raises(
        NotImplementedError, match="layer '8': expected an archive with each example's part, found whole updates"
    ):
        block.per_example(model.get_submodule("8"), weight, torch.ones(2, 6))


def test_the_first_and_the_last_checkpoint_are_read_once(source: UpdateSource, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(stage: FinishedStage, checkpoint: str, parameters: Iterable[Parameter]) -> dict[str, Ints]:
        read.append(checkpoint)
        return read_weights(stage, checkpoint, parameters)

    monkeypatch.setattr(dense, "read_weights", counted)
    weights = [end(layer) for end in (source.initial, source.final) for layer in source.layers]
    assert len(read) == len(set(read)) == 2
    kept = [weight.clone() for weight in weights]
    for weight in weights:
        weight.zero_()  # a caller's copy: the next one gets the weights as they are
    again = [end(layer) for end in (source.initial, source.final) for layer in source.layers]
    assert all(torch.equal(a, b) for a, b in zip(again, kept, strict=True))


def test_a_layer_that_was_not_recorded_is_named(source: UpdateSource) -> None:
    for ask in (
        lambda: source.initial("1"),
        lambda: source.final_bias("1"),
        lambda: list(source.blocks(source.segments()[0], ["1"])),
    ):
        with pytest.raises(KeyError, match=r"layer: expected a recorded one \(0, 3, 6, 8\), found '1'"):
            ask()


def archive_files(store: Path) -> list[str]:
    (stage,) = store.glob("updates/*")
    return sorted(str(f.relative_to(store)) for f in stage.joinpath("files").rglob("*") if f.is_file())


def test_every_flipped_byte_is_found_by_reading_and_by_verify(copied: Path) -> None:
    rng = np.random.default_rng(0)
    source = open_updates(str(copied))
    total = read_all(source)
    store = open_store(str(copied))
    (path,) = find_archives(store)
    for name in archive_files(copied):
        whole = (copied / name).read_bytes()
        raw = bytearray(whole)
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        (copied / name).write_bytes(bytes(raw))
        with pytest.raises(DamagedError) as caught:
            read_all(open_updates(str(copied)))
        assert str(caught.value).startswith(name), name
        assert any(line.startswith(name) for line in verify_stage(store, path)), name
        (copied / name).write_bytes(whole)
    assert read_all(open_updates(str(copied))) == total
    assert list(verify_stage(store, path)) == []


def test_a_lost_file_is_found(copied: Path) -> None:
    name = next(name for name in archive_files(copied) if "/c/0" in name)
    (copied / name).unlink()
    with pytest.raises(DamagedError, match=f"^{name}: expected a file of a complete stage, found none$"):
        read_all(open_updates(str(copied)))


def test_two_sound_files_that_do_not_belong_together_are_found(copied: Path) -> None:
    chunk = [name for name in archive_files(copied) if "/6.weight/c/0" in name]
    (copied / chunk[0]).write_bytes((copied / chunk[1]).read_bytes())
    source = open_updates(str(copied))
    with pytest.raises(DamagedError, match="layer '6': expected the recorded weights after step 6, found others"):
        list(source.blocks(source.segments()[0], ["6"]))


def test_reading_holds_a_few_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**20
    monkeypatch.setattr(chunks, "LEAST", size)
    monkeypatch.setattr(chunks, "USUAL", size)
    torch.manual_seed(0)
    model, steps = nn.Linear(128, 128, bias=False), 320  # 64 kB a step, 20 MB in one segment
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=steps) as recorder:
        for step in range(steps):
            with recorder.step([step]):
                optimizer.zero_grad()
                model(torch.ones(1, 128) * step).logsumexp(1).sum().backward()
                optimizer.step()
    source = open_updates(str(tmp_path / "store"))
    rows = []
    tracemalloc.start()  # sees NumPy's memory: what is read, and what it is restored to
    try:
        for block in source.blocks(source.segments()[0]):
            rows.append(len(block.steps))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == [16] * 20
    assert peak < 4.5 * size


def test_a_store_without_an_archive_says_so(tmp_path: Path) -> None:
    open_store(str(tmp_path / "empty"), create=True)
    with pytest.raises(StoreError, match="expected an archive of a recorder, found none; no recorder wrote here"):
        open_updates(str(tmp_path / "empty"))
    with pytest.raises(StoreError, match="expected a layerlore store, found none"):
        open_updates(str(tmp_path / "nowhere"))


def test_a_stage_that_was_not_recorded_says_so(tmp_path: Path) -> None:
    stage = begin_stage(open_store(str(tmp_path / "s"), create=True), StageSpec("training", 1), Layout(1))
    with stage.partition(0):
        pass
    with pytest.raises(StoreError, match="expected a recorded training, found no record; set `record` and run it"):
        update_source(stage.seal({}))


def test_an_archive_of_an_unknown_kind_says_so(copied: Path, update_records: Callable[[Path, str], None]) -> None:
    update_records(copied, "float8")
    with pytest.raises(ValueError, match=r"kind: expected one of auto, dense, .*found 'float8'"):
        open_updates(str(copied))


@pytest.fixture
def update_records() -> Callable[[Path, str], None]:
    """A function that makes the partition records of an archive state another kind."""

    def update(store: Path, kind: str) -> None:
        opened = open_store(str(store))
        (path,) = find_archives(opened)
        finished = find_finished(opened, path)
        assert isinstance(finished, FinishedStage)
        for number in range(finished.layout.partitions):
            record = read_marker(opened, path, number)
            record["numbers"]["recording"]["kind"] = kind
            opened.write(f"{path}/markers/{marker_name(number)}", encode(record))

    return update
