"""A replay archive gives the updates of the dense archive bit for bit, and says where it cannot."""

import io
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from storage.claims import StageHeldError
from storage.documents import DamagedError, decode, digest, encode
from storage.stores import StoreError
from tasks.recording import ReplayMismatch, UpdateRecorder, open_updates, replay, replay_block
from tasks.recording.fingerprints import BLOCK
from tests.tasks.recording.conftest import LAYERS, Interruption, Repeated, Training, batch, ids, same, snapshot
from tests.tasks.recording.recordings import OPTIMIZERS, STEPS

Recorded = tuple[Path, Training]


def check_replay(store: Path, training: Training, layers: list[str] = LAYERS) -> None:
    """Compare every step's weights and updates with the copies that the loop kept, segments in reverse order."""
    source = open_updates(str(store), program=training.program)
    assert source.kind == "replay"
    for segment in reversed(source.segments()):
        seen = {layer: [segment.start - 1] for layer in layers}
        for block in source.blocks(segment, layers):
            torch.randn(3)  # a reader draws numbers between two blocks
            name = block.layer
            states = training.states[block.start : block.stop + 1]
            weights = torch.stack([state[f"{name}.weight"] for state in states])
            assert torch.equal(block.weights, weights), (name, block.start)
            wide = weights.to(torch.promote_types(weights.dtype, torch.float32))
            assert torch.equal(block.dense(), wide[1:] - wide[:-1])
            if f"{name}.bias" in states[0]:
                biases = torch.stack([state[f"{name}.bias"] for state in states])
                assert block.biases is not None
                assert torch.equal(block.biases, biases)
            seen[name] += block.steps.tolist()
        assert all(steps == list(range(segment.start - 1, segment.stop)) for steps in seen.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_replay_is_the_training_bit_for_bit(tmp_path: Path, name: str) -> None:
    plain, training = Training(OPTIMIZERS[name]).plain(STEPS), Training(OPTIMIZERS[name])
    assert same(training.recorded(tmp_path / "store", STEPS, kind="replay"), plain)
    check_replay(tmp_path / "store", training)
    files = [f.name for f in (tmp_path / "store").rglob("*") if f.is_file() and "segment-" in str(f)]
    assert sorted(set(files)) == ["ledger.parquet", "zarr.json"]  # no update is kept


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_widths_are_replayed(tmp_path: Path, dtype: torch.dtype) -> None:
    training = Training(dtype=dtype)
    training.recorded(tmp_path / "store", 9, kind="replay")
    check_replay(tmp_path / "store", training)


class Scheduled(Training):
    """A training with clipping and a rate that the loop sets in each step."""

    def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        inputs, labels = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        self.states.append(snapshot(model))
        return loss


def test_clipping_and_rates_of_the_loop_are_replayed(tmp_path: Path) -> None:
    training = Scheduled()
    training.recorded(tmp_path / "store", STEPS, kind="replay")
    check_replay(tmp_path / "store", training)
    ledger = open_updates(str(tmp_path / "store"), program=training.program).ledger
    np.testing.assert_allclose(ledger["lr"], [0.1 / (1 + step) for step in range(STEPS)])


def test_rates_come_from_the_ledger_where_a_scheduler_of_the_loop_sets_them(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    with UpdateRecorder(
        model, optimizer, tmp_path / "store", kind="replay", checkpoint_every=4, program=training.program
    ) as recorder:
        for step in range(10):
            with recorder.step(ids(step)):
                training.update(model, optimizer, step)
            scheduler.step()
    check_replay(tmp_path / "store", training)


def test_a_killed_replay_recording_goes_on(tmp_path: Path) -> None:
    training = Training()
    with pytest.raises(Interruption):
        training.recorded(tmp_path / "store", STEPS, kind="replay", fail_at=10)
    states = training.states
    end = training.recorded(tmp_path / "store", STEPS, kind="replay")
    assert same(end, Training().plain(STEPS))
    training.states = states[:8] + training.states[1:]  # the second run began at the checkpoint after step 6
    check_replay(tmp_path / "store", training)


def test_blocks_are_cut_by_memory(replay_archive: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    store, training = replay_archive
    monkeypatch.setattr(replay, "BLOCK", 3 * 4 * (75 * 6 + 6))
    source = open_updates(str(store), program=training.program)
    blocks = list(source.blocks(source.segments()[0], ["6"]))
    assert [(block.start, block.stop) for block in blocks] == [(0, 3), (3, 6), (6, 7)]
    check_replay(store, training)


def test_large_updates_are_not_formed_whole(replay_archive: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one step give the contributions of their updates, which only the first block of a layer forms."""
    store, training = replay_archive
    monkeypatch.setattr(replay, "BLOCK", 1)
    monkeypatch.setattr(replay_block, "LARGE", 1)
    formed, original = list[int](), replay_block.ReplayBlock.dense

    def dense(self: replay_block.ReplayBlock, dtype: torch.dtype | None = None) -> Tensor:
        formed.append(self.start)
        return original(self, dtype)

    monkeypatch.setattr(replay_block.ReplayBlock, "dense", dense)
    source = open_updates(str(store), program=training.program)
    module, weight, seen = nn.Linear(75, 6), source.final("6"), torch.randn(5, 75)
    for anchor in (None, weight - source.initial("6")):
        formed.clear()
        for block in source.blocks(source.segments()[0], ["6"]):
            found = block.project(module, weight, seen, anchor=anchor)
            before, after = (training.states[step]["6.weight"] for step in (block.start, block.stop))
            z = seen.double() @ (weight if anchor is None else anchor).double().T
            moved = seen.double() @ (after - before).double().T
            scale = float((z.norm(dim=1) * moved.norm(dim=1)).max())
            np.testing.assert_allclose(found.gamma[:, 0], (z * moved).sum(dim=1), atol=2e-5 * scale, rtol=0)
            np.testing.assert_allclose(found.norm[:, 0], moved.norm(dim=1), rtol=1e-4)
        assert formed == [0]


def test_ends_and_ledger_need_no_program(replay_archive: Recorded) -> None:
    store, training = replay_archive
    source = open_updates(str(store))
    assert torch.equal(source.initial("6"), training.states[0]["6.weight"])
    assert torch.equal(source.final("6"), training.states[-1]["6.weight"])
    change = training.states[3]["6.weight"].double() - training.states[2]["6.weight"].double()
    assert source.ledger["norm/6"][2] == pytest.approx(float(change.norm()), rel=1e-12)
    with pytest.raises(ValueError, match=r"^program: expected one to repeat the training of .*, found none; give open"):
        list(source.blocks(source.segments()[0]))


def test_a_source_reaches_a_worker(replay_archive: Recorded) -> None:
    store, _ = replay_archive
    source = open_updates(str(store), program=small_program)
    alone, segment = pickle.loads(pickle.dumps((source, source.segments()[1])))  # noqa: S301  # as a worker gets it
    assert [block.layer for block in alone.blocks(segment, ["8"])] == ["8"]


def small_program() -> Repeated:
    return Training().program()


def tampered(store: Path, target: Path, change: Callable[[dict[str, list[object]]], None], segment: int) -> Path:
    """Copy an archive with a changed ledger in a segment, whose digests in the records agree with it."""
    shutil.copytree(store, target)
    (stage,) = target.glob("updates/*")
    (file,) = stage.glob(f"files/segment-{segment:06d}-*/ledger.parquet")
    table = pq.read_table(io.BytesIO(file.read_bytes()))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    change(columns)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=table.schema), buffer)
    file.write_bytes(buffer.getvalue())
    note = stage / "markers" / "complete.json"
    document = decode(note.read_bytes(), "note")
    document["files"][str(file.relative_to(stage / "files"))] = digest(buffer.getvalue())
    note.write_bytes(encode(document))
    return target


def test_another_digest_names_step_and_layer(replay_archive: Recorded, tmp_path: Path) -> None:
    store, training = replay_archive

    def change(columns: dict[str, list[object]]) -> None:
        columns["digest/6"][3] = int(str(columns["digest/6"][3])) ^ 1

    source = open_updates(str(tampered(store, tmp_path / "copied", change, 1)), program=training.program)
    list(source.blocks(source.segments()[0]))
    with pytest.raises(ReplayMismatch, match=r"^step 10, layer '6': expected its recorded weights") as caught:
        list(source.blocks(source.segments()[1], ["0"]))  # all recorded layers are compared, not only this one
    assert (caught.value.step, caught.value.layer) == (10, "6")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # as a worker gives it back
    assert (again.step, again.layer, str(again)) == (10, "6", str(caught.value))


def test_another_program_is_found_at_its_first_step(replay_archive: Recorded) -> None:
    store, _ = replay_archive

    class Other(Training):
        def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
            return super().update(model, optimizer, step + (step == 9))

    source = open_updates(str(store), program=Other().program)
    list(source.blocks(source.segments()[0]))
    with pytest.raises(ReplayMismatch) as caught:
        list(source.blocks(source.segments()[1]))
    assert (caught.value.step, caught.value.layer) == (9, "0")


def test_the_next_checkpoint_must_be_reproduced(replay_archive: Recorded) -> None:
    store, _ = replay_archive

    class Moving(Training):
        """Changes what no recorded layer holds."""

        def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
            loss = super().update(model, optimizer, step)
            if step == 6:
                model.get_buffer("1.running_mean")[0] += 1e-3
            return loss

    source = open_updates(str(store), program=Moving().program)
    with pytest.raises(ReplayMismatch, match=r"^step 6, layer '1\.running_mean': expected its state in the next"):
        list(source.blocks(source.segments()[0]))


def test_another_network_is_one_line(replay_archive: Recorded) -> None:
    store, _ = replay_archive

    def wider() -> Repeated:
        model = nn.Sequential(nn.Conv2d(2, 6, 3, groups=2), *list(Training().start()[0].children())[1:])
        return model, torch.optim.SGD(model.parameters(), 0.1), lambda row: None

    source = open_updates(str(store), program=wider)
    text = r"^program: expected 0\.bias of float32 \(4,\), as recorded, found float32 \(6,\); give the program"
    with pytest.raises(ValueError, match=text):
        list(source.blocks(source.segments()[0]))

    def adam() -> Repeated:
        model, _ = Training().start()
        groups = [{"params": [p]} for p in model.parameters()]
        return model, torch.optim.SGD(groups, 0.1), lambda row: None

    source = open_updates(str(store), program=adam)
    with pytest.raises(
        ValueError, match=r"^program: expected the recorded network and optimiser, found others: .*group"
    ):
        list(source.blocks(source.segments()[0]))


@pytest.mark.parametrize(
    ("fact", "value"), [("threads", 64), ("instructions", "AVX1024"), ("torch", "1.0"), ("device", "tpu")]
)
def test_another_environment_is_refused_by_name(
    replay_archive: Recorded, tmp_path: Path, fact: str, value: object
) -> None:
    store, training = replay_archive
    shutil.copytree(store, tmp_path / "copied")
    (record,) = (tmp_path / "copied").glob("updates/*/markers/000001.json")
    document = decode(record.read_bytes(), "record")
    here = document["numbers"]["environment"][fact]
    document["numbers"]["environment"][fact] = value
    record.write_bytes(encode(document))
    source = open_updates(str(tmp_path / "copied"), program=training.program)
    text = re.escape(f"expected {fact} {value}, as in the recording, found {here}; replay in that environment")
    with pytest.raises(StoreError, match=text):
        list(source.blocks(source.segments()[1]))


def test_two_threads_against_one(replay_archive: Recorded) -> None:
    store, training = replay_archive
    threads = torch.get_num_threads()
    source = open_updates(str(store), program=training.program)
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(StoreError, match=rf"expected threads {threads}, .* found {threads + 1}; replay in that"):
            list(source.blocks(source.segments()[0]))
    finally:
        torch.set_num_threads(threads)


def test_large_layers_have_digests_of_blocks(tmp_path: Path) -> None:
    """A change of one bit in any part of a large weight changes its digest; its norm is within 10 %."""
    torch.manual_seed(0)
    model = nn.Linear(300, 700, bias=False)
    assert model.weight.nbytes > 3 * BLOCK
    optimizer, before = torch.optim.SGD(model.parameters(), lr=0.1), model.weight.detach().clone()
    changes = [0, 65_535, 65_536, 209_999]

    def update(step: int) -> None:
        optimizer.zero_grad()
        (model(torch.randn(4, 300, generator=torch.Generator().manual_seed(0))).square().sum()).backward()
        optimizer.step()
        if step:  # one bit after the first step
            model.weight.data.view(-1).view(torch.int32)[changes[step - 1]] ^= 1

    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", checkpoint_every=9) as recorder:
        for step in range(1 + len(changes)):
            with recorder.step([step]):
                update(step)
            before = before if step else model.weight.detach() - before
    ledger = open_updates(str(tmp_path / "store")).ledger
    assert ledger["norm/"][0] == pytest.approx(float(before.double().norm()), rel=0.1)

    def program() -> Repeated:
        again = nn.Linear(300, 700, bias=False)
        sgd = torch.optim.SGD(again.parameters(), lr=0.1)

        def step(row: object) -> None:
            sgd.zero_grad()
            (again(torch.randn(4, 300, generator=torch.Generator().manual_seed(0))).square().sum()).backward()
            sgd.step()
            number = row.step  # type: ignore[attr-defined]  # a Row
            if 0 < number < len(changes):
                again.weight.data.view(-1).view(torch.int32)[changes[number - 1]] ^= 1

        return again, sgd, step

    source = open_updates(str(tmp_path / "store"), program=program)
    with pytest.raises(ReplayMismatch, match=f"^step {len(changes)}, layer '.the model itself.'"):
        list(source.blocks(source.segments()[0]))


def test_every_flipped_byte_and_every_lost_file_is_named(replay_archive: Recorded, tmp_path: Path) -> None:
    store, training = replay_archive
    shutil.copytree(store, tmp_path / "copied")
    (stage,) = (tmp_path / "copied").glob("updates/*")
    rng = np.random.default_rng(0)

    def read() -> None:
        source = open_updates(str(tmp_path / "copied"), program=training.program)
        for segment in source.segments():
            list(source.blocks(segment))

    for file in sorted(f for f in (stage / "files").rglob("*") if f.is_file()):
        whole, name = file.read_bytes(), re.escape(str(file.relative_to(tmp_path / "copied")))
        raw = bytearray(whole)
        raw[int(rng.integers(len(raw)))] ^= 1
        file.write_bytes(bytes(raw))
        with pytest.raises(DamagedError, match=f"^{name}: expected the content that was written, found other content"):
            read()
        file.unlink()
        with pytest.raises(DamagedError, match=f"^{name}: expected a file of a complete stage, found none"):
            read()
        file.write_bytes(whole)
    read()


def test_two_recorders_of_one_replay(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=training.program) as recorder:
        with pytest.raises(StageHeldError, match="is held by a recorder"):
            UpdateRecorder(*Training().start(), tmp_path / "store", kind="replay")
        with recorder.step([0]):
            training.update(model, optimizer, 0)
    assert open_updates(str(tmp_path / "store")).steps == 1
