"""Whether a network can be trained on a data set, as the plan finds out."""

import torch
from torch import Tensor, nn

from storage.specs import StageSpec
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of
from tasks.steps.common.survey import check_outputs
from tasks.training.gates import find_gated_map


def check_trainable(spec: StageSpec, survey: Survey) -> None:
    """Raise ValueError where a network cannot be trained on a data set; `spec` is any stage that trains one."""
    found, train = survey.data(spec.inputs["data"]), training_of(spec)

    def look(model: nn.Module, example: Tensor) -> None:
        if train.gates is not None:
            find_gated_map(model, example)
        try:
            with torch.inference_mode():
                output = model.train()(torch.cat([example, example]))
        finally:
            model.eval()
        if not isinstance(output, Tensor) or output.ndim != 2:
            kind = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"in training its output is {kind}, expected logits (n, C)")
        check_outputs(found, output.shape[1])

    survey.look(spec, f"training, gated {train.gates is not None}", look)
