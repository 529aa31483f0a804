"""A callback for Lightning that records every weight update.

trainer = Trainer(callbacks=[RecordUpdates("lore-of-mine")])
trainer.fit(module, DataLoader(WithIds(dataset)))   # batches end with the sample ids
"""

import os
from typing import TYPE_CHECKING, Any

from tasks.recording.frameworks import Batch, GetIds, LoopRecorder, batch_ids
from tasks.recording.given import ids_of

if TYPE_CHECKING:

    class Callback:
        """Lightning's base of callbacks."""

else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback

Trainer = Any  # Any: of `lightning` or of `pytorch_lightning`
LightningModule = Any  # Any: as Trainer


class RecordUpdates(Callback):
    """Records the training of `Trainer.fit` into a store; closes the archive at its end.

    After a crash, call `fit` again, with `ckpt_path` or from the start. Steps that the archive has are made again
    without recording; the weights must then be the archive's.

    Parameters
    ----------
    store : folder or URL of the archive's store
    ids : returns the sample ids of a batch; by default those of `WithIds`
    module : name of the part of the LightningModule to record, so that layers have the names of that network;
        default: all of it
    settings : of `UpdateRecorder`, such as kind and layers; `checkpoint_every` is a part of an epoch by default
    """

    def __init__(
        self, store: "str | os.PathLike[str]", *, ids: GetIds = batch_ids, module: str = "", **settings: Any
    ) -> None:  # Any: of each setting
        self._loop, self._ids, self._module, self._count = LoopRecorder(store, settings), ids, module, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the archive; the trainer has restored its checkpoint."""
        if not pl_module.automatic_optimization or len(trainer.optimizers) != 1 or trainer.world_size > 1:
            raise ValueError(
                "RecordUpdates: expected automatic optimisation by one optimiser in one process, found "
                f"{len(trainer.optimizers)} optimisers in {trainer.world_size} processes"
                f"{'' if pl_module.automatic_optimization else ', by hand'}; use UpdateRecorder in the loop"
            )
        batches, every = trainer.num_training_batches, trainer.accumulate_grad_batches
        interval = -(-int(batches) // every) if batches != float("inf") else None
        self._loop.open(pl_module.get_submodule(self._module), trainer.optimizers[0], trainer.global_step, interval)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Take the ids of a batch."""
        found = ids_of("ids", self._ids(batch))
        self._count = len(found)
        self._loop.add(found, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:  # Any: what a training step returns
        """End an update after the last of its batches."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        # Lightning divides a loss by the number of batches of an update.
        self._loop.lost(None if loss is None else loss * trainer.accumulate_grad_batches, self._count)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._loop.end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the archive."""
        self._loop.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release the archive unfinished."""
        self._loop.abandon()
