"""A check of the plan: whether a network can be trained on a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.documents import canonical
from storage.specs import StageSpec
from tasks.engine.survey import Survey
from tasks.steps.common.companions import planned_settings
from tasks.steps.common.courses import training_of
from tasks.steps.common.smallest_batch import check_smallest_batch
from tasks.steps.common.survey import check_outputs
from tasks.steps.common.trials import check_logits

if TYPE_CHECKING:
    from torch import Tensor, nn

OF_IMAGES = ("augment", "adversary")  # settings that change pixels


def check_trainable(spec: StageSpec, survey: Survey, *, key: str = "") -> None:
    """Raise ValueError where a network cannot be trained or evaluated on a data set.

    Its output must be (n, C) with C above all labels. In evaluation mode, an image must have one answer.

    Parameters
    ----------
    spec : any stage that trains a network
    key : config key of the training's settings; default: the key of the network's own training
    """
    import torch
    from torch import Tensor

    from tasks.training.companions import COMPANIONS

    found, asked = survey.data(spec.inputs["data"]), planned_settings(spec)
    augmented = ("augment",) if training_of(spec).augment is not None else ()

    def look(model: nn.Module, example: Tensor, images: Tensor) -> None:
        for name, value in model.state_dict().items():
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise ValueError(f"expected tensors only in its state dict, found {name}, a {kind}")
        check_logits(model, images)
        if images.ndim != 4 and (changing := [name for name in (*asked, *augmented) if name in OF_IMAGES]):
            raise ValueError(f"train.{changing[0]}: expected images, found graphs or sequences; leave it out")
        for name, settings in asked.items():
            COMPANIONS[name](settings, model, example, images)
        try:
            with torch.inference_mode():
                output = model.train()(torch.cat([example, example]))
        finally:
            model.eval()
        if not isinstance(output, Tensor) or output.ndim != 2:
            kind = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"expected logits (n, C) as its output in training, found {kind}")
        check_outputs(found, output.shape[1], spec.inputs["data"])

    survey.look(spec, f"training with {canonical(dict(asked)).decode()}{' augmented' * len(augmented)}", look)
    check_smallest_batch(spec, survey, key=key)
