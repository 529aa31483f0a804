"""The callback for Lightning, with the real package: the training is the unrecorded one, and it resumes."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from storage.stores import StoreError
from tasks.recording import open_updates
from tasks.recording.frameworks import WithIds, batch_ids

REASON = "the extra `lightning` is not installed"
pytest.importorskip("lightning", reason=REASON)
PACKAGES = ("lightning.pytorch", "pytorch_lightning")
Lightning = Any  # Any: a package without types

pytestmark = pytest.mark.filterwarnings("default")  # those of the package

N, SIZE, EPOCHS = 44, 4, 3  # 11 batches an epoch
IDS = np.random.default_rng(1).permutation(1000)[:N]


class Order(Sampler[int]):
    """An order that is a function of the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, as Lightning says it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return N

    def __iter__(self) -> Any:  # Any: an iterator of ids
        return iter(np.random.default_rng(self.epoch).permutation(N).tolist())


def loader() -> "DataLoader[Any]":
    """The batches, with ids."""
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(N, 5, generator=generator), torch.arange(N) % 3)
    return DataLoader(WithIds(data, IDS.tolist()), SIZE, sampler=Order())


def module_of(package: Lightning, stop: int | None = None) -> Lightning:
    """A module around a network with dropout, SGD with momentum and a schedule; it may break off at a step."""

    class Module(package.LightningModule):  # type: ignore[misc]  # an untyped package
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))
            self.seen: list[list[int]] = []
            self.losses: list[float] = []

        def training_step(self, batch: list[Any], index: int) -> Tensor:
            inputs, labels, more = batch
            if len(self.seen) == stop:
                raise KeyError("power cut")
            self.seen.append(more["ids"].tolist())
            torch.manual_seed(self.trainer.global_step)  # of dropout: a function of the step
            loss = F.cross_entropy(self.net(inputs), labels)
            self.losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> Any:  # Any: Lightning's mapping
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Module()


def fit(
    package: Lightning, folder: Path, callbacks: list[Any], stop: int | None = None, **settings: Any
) -> Lightning:  # Any: Lightning's own
    """Train on one core without anything else; checkpoints are those of whole epochs."""
    checkpoint = settings.pop("ckpt_path", None)
    saving = package.callbacks.ModelCheckpoint(folder, save_last=True, save_top_k=1, save_on_train_epoch_end=True)
    trainer = package.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[*callbacks, saving], **settings,
    )  # fmt: skip
    module = module_of(package, stop)
    trainer.fit(module, loader(), ckpt_path=checkpoint)
    return module


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Lightning:
    """Either name of the package."""
    pytest.importorskip(request.param, reason=REASON)
    return importlib.import_module(request.param)


def record(store: Path, **settings: Any) -> Any:  # Any: of UpdateRecorder
    """A callback that names layers as the network does."""
    from tasks.recording.lightning import RecordUpdates

    return RecordUpdates(store, module="net", **settings)


def equal(one: Lightning, other: Lightning) -> bool:
    """Compare all weights bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "every"), [("dense", 1), ("hybrid", 1), ("dense", 3)])
def test_the_training_is_that_without_a_callback(package: Lightning, tmp_path: Path, kind: str, every: int) -> None:
    plain = fit(package, tmp_path / "plain", [], accumulate_grad_batches=every)
    module = fit(package, tmp_path / "run", [record(tmp_path / "lore", kind=kind)], accumulate_grad_batches=every)
    assert equal(plain, module)
    assert not module._forward_hooks
    assert not module.net[0]._forward_hooks
    source = open_updates(str(tmp_path / "lore"))
    assert source.layers == ["0", "3"]
    per_epoch = -(-11 // every)
    assert source.steps == EPOCHS * per_epoch
    assert torch.equal(source.final("3"), module.net[3].weight)
    expected = [
        [i for batch in module.seen[11 * epoch + start : 11 * epoch + min(start + every, 11)] for i in batch]
        for epoch in range(EPOCHS)
        for start in range(0, 11, every)
    ]
    assert [ids.tolist() for ids in source.examples] == expected
    assert source.ledger["epoch"].tolist() == [e for e in range(EPOCHS) for _ in range(per_epoch)]
    sizes = [len(batch) for batch in module.seen]
    means = [
        np.average(module.losses[at], weights=sizes[at])
        for epoch in range(EPOCHS)
        for start in range(0, 11, every)
        for at in [slice(11 * epoch + start, 11 * epoch + min(start + every, 11))]
    ]
    np.testing.assert_allclose(source.ledger["loss"], means, rtol=1e-6)
    np.testing.assert_allclose(source.ledger["lr"], [0.1 * 0.5 ** (t // 7) for t in range(source.steps)])


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("stop", [16, 27])
def test_a_broken_training_resumes(package: Lightning, tmp_path: Path, stop: int, checkpoint: bool) -> None:
    whole = fit(package, tmp_path / "whole", [record(tmp_path / "expected")])
    with pytest.raises(KeyError, match="power cut"):
        fit(package, tmp_path / "run", [record(tmp_path / "lore")], stop)
    last = str(tmp_path / "run" / "last.ckpt") if checkpoint else None
    module = fit(package, tmp_path / "run", [record(tmp_path / "lore")], ckpt_path=last)
    assert equal(whole, module)
    expected, found = (open_updates(str(tmp_path / name)) for name in ("expected", "lore"))
    assert [ids.tolist() for ids in found.examples] == [ids.tolist() for ids in expected.examples]
    for layer in ("0", "3"):
        for one, other in zip(expected.segments(), found.segments(), strict=True):
            (a,), (b,) = ([*s.blocks(span, [layer])] for s, span in ((expected, one), (found, other)))
            assert torch.equal(a.weights, b.weights)
    with pytest.raises(StoreError, match="found a finished one of 33 steps"):
        fit(package, tmp_path / "third", [record(tmp_path / "lore")])


def test_a_checkpoint_ahead_of_the_archive_is_refused(package: Lightning, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fit(package, tmp_path / "run", [], 27)
    with pytest.raises(StoreError, match=r"expected a training at step 0 or before, .* found one at step 22"):
        fit(package, tmp_path / "run", [record(tmp_path / "lore")], ckpt_path=str(tmp_path / "run" / "last.ckpt"))


def test_another_training_is_not_gone_on_with(package: Lightning, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fit(package, tmp_path / "run", [record(tmp_path / "lore")], 27)
    with pytest.raises(RuntimeError, match="step 22: layer '0': expected its weights after step 21, found others"):
        fit(package, tmp_path / "run", [record(tmp_path / "lore")], gradient_clip_val=0.01)


def test_batches_without_ids_are_refused(package: Lightning, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch: expected sample ids under the key 'ids', found none; wrap the data"):
        fit(package, tmp_path / "run", [record(tmp_path / "lore", ids=lambda batch: batch_ids(batch[:2]))])
    with pytest.raises(TypeError, match="ids: expected integer ids, found float32"):
        fit(package, tmp_path / "run", [record(tmp_path / "lore", ids=lambda batch: batch[0])])


def test_two_optimisers_are_refused(package: Lightning, tmp_path: Path) -> None:
    class Two(type(module_of(package))):  # type: ignore[misc]  # of an untyped package
        automatic_optimization = False

        def configure_optimizers(self) -> Any:  # Any: Lightning's list
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    trainer = package.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, callbacks=[record(tmp_path / "lore")],
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="found 2 optimisers in 1 processes, by hand; use UpdateRecorder in the loop"):
        trainer.fit(Two(), loader())
