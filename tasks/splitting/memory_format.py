"""The memory format that a network takes: channels last is up to twice as fast, but some forward passes fail in it."""

import torch
from torch import Tensor, nn

REFUSED = "view size is not compatible"  # torch's words


def in_fitting_format(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a network in channels last, or one that takes images of any memory format where that fails.

    Parameters
    ----------
    model : in evaluation mode; it is changed in place
    example : (n, C, H, W), on the model's device; inputs that are not images have one format

    Notes
    -----
    `x.view(len(x), -1)` after a convolution is such a failure. That network gets contiguous copies of its inputs.
    """
    if example.ndim != 4:
        return model
    converted: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub
    images = torch.cat([example[:1], example[:1]]).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            converted(images)
    except RuntimeError as error:
        if REFUSED in str(error):
            return _contiguous(converted)
    except Exception:  # the caller's own check says what is wrong with the network
        return converted
    return converted


def _contiguous(model: nn.Module) -> nn.Module:
    """Let a network make its input contiguous; its modules and their names stay the same."""
    plain: nn.Module = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as above
    kind = type(plain)

    def forward(self: nn.Module, x: Tensor) -> object:
        return kind.forward(self, x.contiguous())

    plain.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return plain
