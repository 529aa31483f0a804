"""The dual-encoder stage: a tiny image-text model, trained once on drawn images and kept for all runs of a store."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from configs.concepts import Tiny
from storage.layouts import Layout
from storage.specs import StageSpec, without_defaults
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey

if TYPE_CHECKING:
    from tasks.io.image_text import ImageText

VERSION = 1
FILE = "encoder.safetensors"
WEIGHTS_BYTES = 2**20
TRAINING_BYTES = 512 * 2**20  # memory of one batch, forward and backward


def dual_encoder_spec(asked: Tiny) -> StageSpec:
    """Return the spec of the tiny image-text model."""
    settings = asked.model_dump(mode="json", include={"steps", "seed"})
    kept = without_defaults(settings, {"seed": 0, "steps": Tiny().steps})
    return DUAL_ENCODER.spec(kept, {}, place=settings, label=f"seed {asked.seed}")


@lru_cache(maxsize=2)
def open_dual_encoder(store: Store, spec: StageSpec) -> ImageText:
    """Return the trained model of a finished stage, which this process caches."""
    from tasks.io.image_text import open_image_text
    from tasks.io.tensors import unpack_tensors

    return open_image_text("dual-encoder", state=unpack_tensors(open_finished(store, spec).read_file(FILE)))


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Train the model."""
    import torch

    from tasks.io.tensors import pack_tensors
    from tasks.training.dual_encoder import train_dual_encoder

    torch.set_num_threads(1)
    stage = work.stage
    with stage.partition(number) as part:
        state = train_dual_encoder(int(stage.spec.place["seed"]), steps=int(stage.spec.place["steps"]))
        part.write_file(FILE, pack_tensors(state))
        part.numbers.update(measured(steps=int(stage.spec.place["steps"])))


def _size(spec: StageSpec, survey: Survey) -> Size:
    return Size(WEIGHTS_BYTES, TRAINING_BYTES)


DUAL_ENCODER = Step("dual-encoder", VERSION, _layout, _partition, _size)
