"""Where a snapshot is in the course of its training: its step, and loss and accuracy up to there."""

import pandas as pd

from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import find_finished, open_finished
from storage.stores import Store
from tasks.steps.common.courses import CURVES, training_steps
from tasks.steps.common.segments import epochs_so_far
from tasks.steps.concepts.watched import UNKNOWN_STEP, Watched


def snapshot_step(store: Store, watched: Watched) -> int:
    """Return the number of updates before a snapshot, or the number of a checkpoint; -1 where unknown."""
    if watched.stage is not None:
        return int(open_finished(store, watched.stage).summary.get("step", UNKNOWN_STEP))
    if watched.training is not None:
        manifest = open_finished(store, watched.training.inputs["data"]).summary
        return training_steps(watched.training, manifest)[1]
    return watched.step


def snapshot_course(store: Store, watched: Watched, step: int) -> tuple[float, float]:
    """Return accuracy and loss after the last whole epoch before a step; NaN where unknown."""
    if watched.training is None or step < 0:
        return float("nan"), float("nan")
    if "archive" in watched.training.place:  # of a training elsewhere: its end alone is known
        return float(open_finished(store, watched.training).summary["accuracy"]), float("nan")
    curves = _curves(store, watched.training)
    per_epoch, _ = training_steps(watched.training, open_finished(store, watched.training.inputs["data"]).summary)
    done = curves[curves["epoch"] <= step // per_epoch]
    if done.empty:
        return float("nan"), float("nan")
    return float(done["accuracy"].iloc[-1]), float(done["loss"].iloc[-1])


def _curves(store: Store, training: StageSpec) -> pd.DataFrame:
    """Return loss and accuracy by epoch of a training, or of its epochs so far."""
    if (finished := find_finished(store, training.path)) is not None:
        return read_table(finished.read_file(CURVES), f"{finished.path}/files/{CURVES}")
    return pd.DataFrame(epochs_so_far(store, training), columns=["epoch", "loss", "accuracy"])
