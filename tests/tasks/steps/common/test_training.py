"""The training stage: the same bits whatever stopped it, and values as a plain loop gives them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch.nn import functional as F

from storage.documents import decode, encode
from storage.stages import open_finished
from storage.stores import StoreError
from tasks.cluster.parallel import PartitionError
from tasks.io.networks import build_model
from tasks.steps.common import chain, training
from tasks.steps.common.trainer import environment
from tests.counting import MARKER, counted
from tests.tasks.steps.common.trainings import die_at, file_digests, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_a_killed_training_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, finished_run: "Run", monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    run = new_run(tiny_tree)
    with monkeypatch.context() as patch:
        die_at(patch, call)
        with pytest.raises(PartitionError, match="killed"):
            train(run)
    folder = train(run)
    assert file_digests(folder) == file_digests(Path(finished_run.config.store, spec_of(run).path))


def test_weights_and_curves_are_those_of_a_plain_loop(finished_run: "Run") -> None:
    digits, tree = load_digits(), finished_run.tree
    stage = open_finished(finished_run.job.store, spec_of(finished_run))
    manifest = pd.read_parquet(
        Path(finished_run.config.store, finished_run.plan.shared.manifests["digits"].path, "files/manifest.parquet")
    )
    sets = {}
    for split in ("train", "val"):
        rows = manifest[manifest["split"] == split].sort_values(["label_given", "id"], kind="stable")
        index = rows["id"].to_numpy()
        np.testing.assert_array_equal(digits.target[index], rows["label_given"])
        levels = np.rint(digits.images[index] * 255 / 16)
        sets[split] = torch.tensor(levels / 255, dtype=torch.float32)[:, None], torch.tensor(digits.target[index])
    settings = tree["networks"]["small"]["train"]
    model = build_model("small-cnn", {"width": 4}, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["optimizer"]["lr"], foreach=False)
    inputs, labels = sets["train"]
    curves = []
    for epoch in range(settings["epochs"]):
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(len(inputs)))
        losses = []
        model.train()
        for batch in torch.split(order, settings["batches"]["size"]):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.inference_mode():
            right = (model(sets["val"][0]).argmax(1) == sets["val"][1]).float().mean().item()
        curves.append({"epoch": epoch + 1, "loss": np.mean(losses), "accuracy": right})
    folder = Path(finished_run.config.store, stage.path, "files")
    stored = load_file(folder / "weights.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(stored[name], value, rtol=1e-5, atol=1e-6)
    found = pd.read_parquet(folder / "epochs.parquet")
    np.testing.assert_allclose(found[["epoch", "loss", "accuracy"]], pd.DataFrame(curves), rtol=1e-5)
    assert stage.summary == {"accuracy": pytest.approx(curves[-1]["accuracy"])}


def test_the_seed_makes_another_network(tiny_tree: Tree, new_run: NewRun, finished_run: "Run") -> None:
    run = new_run({**tiny_tree, "seeds": [1]})
    weights = load_file(train(run) / "files" / "weights.safetensors")
    other = load_file(Path(finished_run.config.store, spec_of(finished_run).path, "files/weights.safetensors"))
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def unsealed(run: "Run", keep: int) -> Path:
    """Take the seal and all segments from `keep` on off a finished training."""
    folder = Path(run.config.store, spec_of(run).path)
    (folder / "markers" / "complete.json").unlink()
    for record in sorted((folder / "markers").iterdir())[keep:]:
        record.unlink()
    return folder


def change_record(folder: Path, number: int, **numbers: object) -> None:
    """Write a segment's partition record again with other metrics."""
    path = folder / "markers" / f"{number:06d}.json"
    document = decode(path.read_bytes(), "marker")
    document["numbers"].update(numbers)
    path.write_bytes(encode(document))


def test_another_environment_is_refused(copied_run: "Run") -> None:
    folder = unsealed(copied_run, 2)
    before = decode((folder / "markers/000001.json").read_bytes(), "m")["numbers"]["environment"]
    change_record(folder, 1, environment={**before, "torch": "1.0"})
    with pytest.raises((PartitionError, StoreError), match=r"expected torch 1\.0, as for its checkpoint, found") as e:
        train(copied_run)
    assert f"or remove {folder} to train again" in str(e.value)
    assert not (folder / "markers/complete.json").exists()
    assert not (folder / "markers/000002.json").exists()


@pytest.mark.parametrize(("fact", "value"), [("threads", 7), ("deterministic", True), ("matmul_precision", "medium")])
def test_a_training_goes_on_with_the_same_threads_and_precision_only(
    copied_run: "Run", fact: str, value: object
) -> None:
    folder = unsealed(copied_run, 2)
    before = decode((folder / "markers/000001.json").read_bytes(), "m")["numbers"]["environment"]
    assert before["threads"] == 1  # as trainings set it, whatever this process has
    change_record(folder, 1, environment={**before, "python": "3.0", fact: value})
    with pytest.raises((PartitionError, StoreError), match=f"expected {fact} {value}, as for its checkpoint, found"):
        train(copied_run)


def test_threads_of_the_process_are_not_those_of_the_training() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # as a fresh process may have them, before its first step
    try:
        assert environment(torch.device("cpu"))["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_a_chain_with_a_foreign_parent_is_made_again_from_there(copied_run: "Run", finished_run: "Run") -> None:
    folder = unsealed(copied_run, 4)
    change_record(folder, 2, parent="checkpoint-000001-0123456789ab.safetensors")
    train(copied_run)
    assert file_digests(folder) == file_digests(Path(finished_run.config.store, spec_of(copied_run).path))
    records = [decode(m.read_bytes(), "m")["numbers"] for m in sorted((folder / "markers").glob("0*.json"))]
    assert [m["parent"] for m in records] == ["", *(m["checkpoint"] for m in records[:-1])]


def test_a_gap_in_the_chain_drops_what_follows(copied_run: "Run", finished_run: "Run") -> None:
    folder = unsealed(copied_run, 4)
    (folder / "markers/000001.json").unlink()
    last = (folder / "markers/000003.json").stat().st_mtime_ns
    train(copied_run)
    assert (folder / "markers/000003.json").stat().st_mtime_ns > last
    assert file_digests(folder) == file_digests(Path(finished_run.config.store, spec_of(copied_run).path))


def test_sealing_removes_abandoned_attempts(copied_run: "Run") -> None:
    folder = unsealed(copied_run, 3)
    abandoned = folder / "files" / "checkpoint-000001-0123456789ab.safetensors"
    shutil.copy(next((folder / "files").glob("checkpoint-000001-*")), abandoned)
    train(copied_run)
    assert not abandoned.exists()
    assert len(list((folder / "files").glob("checkpoint-*"))) == 4


def test_a_damaged_checkpoint_is_refused(copied_run: "Run") -> None:
    folder = unsealed(copied_run, 2)
    checkpoint = next((folder / "files").glob("checkpoint-000001-*"))
    data = bytearray(checkpoint.read_bytes())
    data[-1] ^= 1
    checkpoint.write_bytes(bytes(data))
    with pytest.raises(
        (PartitionError, StoreError), match=f"expected the digest in the name of {checkpoint.name}, found damage"
    ):
        train(copied_run)


def test_a_missing_checkpoint_is_named(copied_run: "Run") -> None:
    folder = unsealed(copied_run, 2)
    checkpoint = next((folder / "files").glob("checkpoint-000001-*"))
    checkpoint.unlink()
    with pytest.raises((PartitionError, StoreError), match=f"expected {checkpoint.name}, found none"):
        train(copied_run)


def test_a_learning_rate_that_explodes_is_named(tiny_tree: Tree, new_run: NewRun) -> None:
    tiny_tree["networks"]["small"]["train"]["optimizer"]["lr"] = 1e30
    with pytest.raises(PartitionError, match=r"step \d+: expected a finite loss, found nan; lower the learning rate"):
        train(new_run(tiny_tree))


def test_samples_that_do_not_fit_in_memory_give_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, finished_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (training, chain):
        monkeypatch.setattr(module, "MEMORY_SAMPLES", 0)
    folder = train(new_run(tiny_tree))
    assert file_digests(folder) == file_digests(Path(finished_run.config.store, spec_of(finished_run).path))


def test_defaults_and_names_are_no_part_of_the_key(tiny_tree: Tree, new_run: NewRun) -> None:
    key = spec_of(new_run(tiny_tree)).key
    messages = json.loads(json.dumps(tiny_tree))
    messages["networks"]["small"]["train"] |= {"split": "train", "evaluate": "val"}
    messages["networks"]["small"]["train"]["batches"]["kind"] = "shuffled"
    assert spec_of(new_run(messages)).key == key
    renamed = json.loads(json.dumps(tiny_tree).replace('"digits"', '"numbers"').replace('"small"', '"net"'))
    assert spec_of(new_run(renamed)).key == key
    for change in ({"epochs": 3}, {"batches": {"size": 8}}, {"evaluate": "train"}, {"checkpoint_every": 7}):
        other = json.loads(json.dumps(tiny_tree))
        other["networks"]["small"]["train"] |= change
        assert spec_of(new_run(other)).key != key, change


# Steps 0-15 in segments of 5, epochs of 8: each needs the records of its epoch, and the last one all, for the curves.
@pytest.mark.parametrize(
    ("done", "needed"), [(0, [[], [0], [1], [0, 1, 2]]), (2, [[0, 1, 1], [0, 1, 2]])], ids=["new", "resumed"]
)
def test_each_segment_reads_each_record_before_it_once(copied_run: "Run", done: int, needed: list[list[int]]) -> None:
    """A training that resumes reads its old records once more, in the process that shares out the work."""
    unsealed(copied_run, done)
    with counted() as requests:
        train(copied_run)
    reads: list[list[int]] = [[]]
    for verb, path in requests.seen:
        if re.search(f"training/.*{MARKER}", path) and verb != "miss":
            if verb == "read":
                reads[-1].append(int(Path(path).stem))
            else:
                reads.append([])
    assert [sorted(numbers) for numbers in reads] == [*needed, list(range(done, 4))]  # the last to seal it
