"""The callback for Hugging Face's Trainer, with the real package: it changes no training, and it resumes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.stores import StoreError
from tasks.recording import open_updates
from tasks.recording.frameworks import WithIds

REASON = "the extra `hugging-face` is not installed"
pytest.importorskip("transformers", reason=REASON)
pytest.importorskip("accelerate", reason=REASON)

pytestmark = pytest.mark.filterwarnings("default")  # those of the packages

N, SIZE, EPOCHS = 44, 4, 3  # 11 batches an epoch
IDS = np.random.default_rng(1).permutation(1000)[:N]


class Net(nn.Module):
    """A network as a Trainer wants it, around one that gives logits; it may break off at a batch."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))
        self.seen, self.stop = 0, stop
        self.losses: list[float] = []

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        if self.seen == self.stop and self.training:
            raise KeyError("power cut")
        self.seen += self.training
        logits = self.net(inputs)
        loss = F.cross_entropy(logits, labels)
        if self.training:
            self.losses.append(float(loss.detach()))
        return {"loss": loss, "logits": logits}


def samples(n: int = N) -> list[dict[str, Tensor]]:
    """Return a data set of mappings."""
    generator = torch.Generator().manual_seed(0)
    return [{"inputs": torch.randn(5, generator=generator), "labels": torch.tensor(i % 3)} for i in range(n)]


def fit(folder: Path, callbacks: list[Any], stop: int | None = None, **settings: Any) -> Any:  # Any: the Trainer's own
    """Train on one core; checkpoints are those of whole epochs."""
    from transformers import Trainer, TrainingArguments

    resume = settings.pop("resume", None)
    given = {"save_strategy": "epoch", "remove_unused_columns": False, **settings}
    args = TrainingArguments(
        str(folder), use_cpu=True, num_train_epochs=EPOCHS, per_device_train_batch_size=SIZE, learning_rate=0.01,
        report_to=[], disable_tqdm=True, seed=3, logging_strategy="no", **given,
    )  # fmt: skip
    model = Net(stop)
    data = WithIds(samples(), IDS.tolist())
    trainer = Trainer(model, args, train_dataset=data, eval_dataset=samples(6), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model


def record(store: Path, **settings: Any) -> Any:  # Any: of UpdateRecorder
    """A callback that names layers as the network does."""
    from tasks.recording.hugging_face import RecordUpdates

    return RecordUpdates(store, module="net", **settings)


def noting(seen: list[list[int]]) -> Any:  # Any: a TrainerCallback
    """A callback that only takes the ids out of the batches, as a user without a recorder would."""
    from transformers import TrainerCallback

    class Noting(TrainerCallback):  # type: ignore[misc]  # an untyped package
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # Any: as the package's
            def take(module: nn.Module, args: Any, named: Any) -> Any:  # Any: torch's hooks
                ids = named.pop("ids", None)
                seen.extend([ids.tolist()] if module.training else [])
                return args, named

            given["model"].register_forward_pre_hook(take, with_kwargs=True)

    return Noting()


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Compare all weights bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "every"), [("dense", 1), ("hybrid", 1), ("dense", 3)])
def test_the_training_is_that_without_a_callback(tmp_path: Path, kind: str, every: int) -> None:
    more: dict[str, Any] = {"gradient_accumulation_steps": every, "eval_strategy": "epoch"}
    seen: list[list[int]] = []
    plain = fit(tmp_path / "plain", [noting(seen)], **more)
    model = fit(tmp_path / "run", [record(tmp_path / "lore", kind=kind)], **more)
    assert equal(plain, model)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    source = open_updates(str(tmp_path / "lore"))
    assert source.layers == ["0", "3"]
    per_epoch = -(-11 // every)
    assert source.steps == EPOCHS * per_epoch
    assert torch.equal(source.final("3"), model.net[3].weight)
    expected = [
        [i for batch in seen[11 * epoch + start : 11 * epoch + min(start + every, 11)] for i in batch]
        for epoch in range(EPOCHS)
        for start in range(0, 11, every)
    ]
    assert [ids.tolist() for ids in source.examples] == expected
    assert source.ledger["epoch"].tolist() == [e for e in range(EPOCHS) for _ in range(per_epoch)]
    sizes = [len(batch) for batch in seen]
    means = [
        np.average(model.losses[at], weights=sizes[at])
        for epoch in range(EPOCHS)
        for start in range(0, 11, every)
        for at in [slice(11 * epoch + start, 11 * epoch + min(start + every, 11))]
    ]
    np.testing.assert_allclose(source.ledger["loss"], means, rtol=1e-6)


@pytest.mark.parametrize("resume", [True, None])
@pytest.mark.parametrize("stop", [16, 27])
def test_a_broken_training_resumes(tmp_path: Path, stop: int, resume: bool | None) -> None:
    whole = fit(tmp_path / "whole", [record(tmp_path / "expected")])
    broken = record(tmp_path / "lore")
    with pytest.raises(KeyError, match="power cut"):
        fit(tmp_path / "run", [broken], stop)
    broken.abandon()
    model = fit(tmp_path / "run", [record(tmp_path / "lore")], resume=resume)
    assert equal(whole, model)
    expected, found = (open_updates(str(tmp_path / name)) for name in ("expected", "lore"))
    assert [ids.tolist() for ids in found.examples] == [ids.tolist() for ids in expected.examples]
    for layer in ("0", "3"):
        for one, other in zip(expected.segments(), found.segments(), strict=True):
            (a,), (b,) = ([*s.blocks(span, [layer])] for s, span in ((expected, one), (found, other)))
            assert torch.equal(a.weights, b.weights)
    with pytest.raises(StoreError, match="found a finished one of 33 steps"):
        fit(tmp_path / "third", [record(tmp_path / "lore")])


def test_a_checkpoint_ahead_of_the_archive_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run", [noting([])])
    with pytest.raises(StoreError, match=r"expected a training at step 0 or before, .* found one at step 33"):
        fit(tmp_path / "run", [record(tmp_path / "lore")], resume=True)


def test_columns_must_stay(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="remove_unused_columns: expected False in TrainingArguments"):
        fit(tmp_path / "run", [record(tmp_path / "lore")], remove_unused_columns=True)


def test_batches_without_ids_are_refused(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(str(tmp_path), use_cpu=True, max_steps=2, report_to=[], remove_unused_columns=False)
    trainer = Trainer(Net(), args, train_dataset=samples(), callbacks=[record(tmp_path / "lore")])
    with pytest.raises(ValueError, match="batch: expected sample ids under the key 'ids', found none; wrap"):
        trainer.train()
