"""A callback for the Trainer of Hugging Face's transformers that records every weight update.

trainer = Trainer(model, args, train_dataset=WithIds(dataset), callbacks=[RecordUpdates("lore-of-mine")])
trainer.train()   # args: remove_unused_columns=False, so that batches keep their ids
"""

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

from tasks.recording.frameworks import IDS, NO_IDS, LoopRecorder
from tasks.recording.given import ids_of

if TYPE_CHECKING:

    class TrainerCallback:
        """The base of callbacks."""

else:
    from transformers import TrainerCallback

Settings = Any  # Any: arguments, state and control of a Trainer


class RecordUpdates(TrainerCallback):
    """Records the training of `Trainer.train` into a store; closes the archive at its end.

    After a crash, train again, with `resume_from_checkpoint` or from the start. Steps that the archive has are made
    again without recording; the weights must then be the archive's.

    Parameters
    ----------
    store : folder or URL of the archive's store
    module : name of the part of the model to record, so that layers have the names of that network; default: all of it
    settings : of `UpdateRecorder`, such as kind and layers; `checkpoint_every` is a part of the Trainer's own interval
        by default
    """

    def __init__(self, store: "str | os.PathLike[str]", *, module: str = "", **settings: Any) -> None:  # Any: of each
        self._loop, self._module, self._hooks, self._count = LoopRecorder(store, settings), module, ExitStack(), 0

    def on_train_begin(self, args: Settings, state: Settings, control: Settings, **given: Any) -> None:  # Any: as above
        """Open the archive; the Trainer has restored its checkpoint."""
        self._hooks.close()
        if args.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns: expected False in TrainingArguments, so that batches keep their ids, found "
                "True; set it"
            )
        if args.world_size > 1 or args.n_gpu > 1:
            raise ValueError(
                f"RecordUpdates: expected one process on one device, found {args.world_size} processes with "
                f"{args.n_gpu} GPUs; use UpdateRecorder in the loop"
            )
        model, optimizer = given["model"], given["optimizer"]
        per_epoch = -(-state.max_steps // max(1, state.num_train_epochs))
        interval = int(state.save_steps or 0) or None if args.save_strategy == "steps" else per_epoch
        recorded = model.get_submodule(self._module)
        self._loop.open(recorded, getattr(optimizer, "optimizer", optimizer), state.global_step, interval)
        self._hooks.callback(self._loop.abandon)
        self._hooks.callback(model.register_forward_pre_hook(self._taking(state), with_kwargs=True).remove)
        self._hooks.callback(model.register_forward_hook(self._losing).remove)

    def on_step_end(self, args: Settings, state: Settings, control: Settings, **given: Any) -> None:  # Any: as above
        """End an update."""
        self._loop.end()

    def on_train_end(self, args: Settings, state: Settings, control: Settings, **given: Any) -> None:  # Any: as above
        """Close the archive."""
        self._loop.close()
        self._hooks.close()

    def abandon(self) -> None:
        """Release the archive unfinished, after a training that failed; the Trainer does not say so."""
        self._hooks.close()

    def _taking(self, state: Settings) -> Any:  # Any: torch's type of hooks
        """Return a hook that takes the ids out of each batch before the model sees it."""

        def take(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # Any: as torch's
            ids = named.pop(IDS, None)
            if module.training and ids is None:
                raise ValueError(f"batch: {NO_IDS}")
            if module.training:
                found = ids_of("ids", ids)
                self._count = len(found)
                self._loop.add(found, int(state.epoch or 0))
            return args, named

        return take

    def _losing(self, module: nn.Module, args: Any, output: Any) -> None:  # Any: as torch's
        """Take the loss that a model returns."""
        if module.training:
            found = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
            self._loop.lost(found, self._count)
