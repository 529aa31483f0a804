"""Whether a network can be trained on a data set, as the plan finds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.specs import StageSpec
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of
from tasks.steps.common.smallest_batch import check_smallest_batch
from tasks.steps.common.survey import check_outputs
from tasks.steps.common.trials import check_logits

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_trainable(spec: StageSpec, survey: Survey, *, key: str = "") -> None:
    """Raise ValueError where a network cannot be trained on a data set, or not be measured.

    Its output must be (n, C) with C beyond all labels, and in evaluation mode an image must have one answer.

    Parameters
    ----------
    spec : any stage that trains a network
    key : config key of the training's settings; default: that of the network's own training
    """
    import torch
    from torch import Tensor

    from tasks.training.gates import find_gated_map

    found, train = survey.data(spec.inputs["data"]), training_of(spec)

    def look(model: nn.Module, example: Tensor, images: Tensor) -> None:
        for name, value in model.state_dict().items():
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise ValueError(f"its state dict holds {name}, a {kind}; a training keeps tensors only")
        check_logits(model, images)
        if train.gates is not None:
            find_gated_map(model, example, images=images)
        try:
            with torch.inference_mode():
                output = model.train()(torch.cat([example, example]))
        finally:
            model.eval()
        if not isinstance(output, Tensor) or output.ndim != 2:
            kind = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"in training its output is {kind}, expected logits (n, C)")
        check_outputs(found, output.shape[1], spec.inputs["data"])

    survey.look(spec, f"training, gated {train.gates is not None}", look)
    check_smallest_batch(spec, survey, key=key)
