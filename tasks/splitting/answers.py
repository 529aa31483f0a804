"""Check that a network gives an image one answer: in every run, alone and within a batch."""

import random
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Answers = Mapping[str, Tensor]  # by the name of an output, such as "logits": (n, ...)
Answer = Callable[[Tensor], Answers]

ALONE = 4  # images that are run alone
DRAWS = 8  # runs of a network that draws random numbers: most draws may not change the output


def check_answers(answer: Answer, images: Tensor) -> None:
    """Refuse a network that is random in evaluation mode, or that mixes the images of a batch.

    Parameters
    ----------
    answer : runs the network in evaluation mode
    images : (n, C, H, W), real images where there are any

    Raises
    ------
    ValueError : two runs differ, or an answer to an image differs between alone and within a batch
    """
    batch = _batch(images)
    with torch.inference_mode():
        before = _generators(images.device)
        first = answer(batch.clone())
        draws = _generators(images.device) != before
        for _ in range(DRAWS if draws else 1):
            if difference := _difference(first, answer(batch.clone())):
                raise ValueError(
                    f"the network is random in evaluation mode: two runs on the same images differ ({difference}); "
                    "switch its random parts off in evaluation, such as F.dropout(x, training=self.training)"
                )
    check_alone(answer, images, first)


def check_alone(answer: Answer, images: Tensor, within: Answers | None = None) -> None:
    """Refuse a network whose answer to an image depends on the batch; `within` is the answer to the batch, if known."""
    batch = _batch(images)
    with torch.inference_mode():
        within = answer(batch.clone()) if within is None else within
        for name, value in within.items():
            if not value.ndim or len(value) != len(batch):
                raise ValueError(f"{name}: expected (n, ...) for {len(batch)} images, found shape {tuple(value.shape)}")
        for row in sorted(set(np.linspace(0, len(batch) - 1, ALONE).astype(int).tolist())):
            part = {name: value[row : row + 1] for name, value in within.items()}
            if difference := _difference(part, answer(batch[row : row + 1].clone()), within):
                raise ValueError(
                    "the network's answer to an image depends on the batch: alone and within a batch it differs "
                    f"({difference}); use running statistics in batch norm, and no mean over the images of a batch"
                )


def largest_difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of two tensors of one shape; NaN and infinity equal themselves."""
    same = (first == second) | (first.isnan() & second.isnan())
    difference = torch.where(same, 0, (first.double() - second.double()).abs())
    return float(difference.nan_to_num(torch.inf).max()) if first.numel() else 0.0


def size(tensor: Tensor) -> float:
    """Return the largest finite magnitude in a tensor."""
    return float(tensor.double().nan_to_num(0, 0, 0).abs().max()) if tensor.numel() else 0.0


def _batch(images: Tensor) -> Tensor:
    """Return the images and a copy of the first at half its contrast: images of a batch are not all equal."""
    return torch.cat([images, images[:1] / 2 if images.ndim == 4 else images[:1]])  # half a graph is not a graph


def _difference(first: Answers, second: Answers, whole: Answers | None = None) -> str:
    """Name the answers that differ by more than rounding, "" for none; the scale is `whole`, else `first`."""
    for name, value in first.items():
        other = second[name]
        if other.shape != value.shape:
            return f"{name} of shape {tuple(other.shape)} instead of {tuple(value.shape)}"
        largest, scale = largest_difference(value, other), max(size((whole or first)[name]), size(other))
        # The order of sums depends on the batch size; GPUs multiply in 10 bits there, half types in fewer.
        exact = value.dtype in (torch.float32, torch.float64) and value.device.type == "cpu"
        if largest > (1e-4 if exact else 5e-2) * scale:
            return f"{name} by up to {largest:.3g} of {scale:.3g}"
    return ""


def _generators(device: torch.device) -> tuple[object, ...]:
    """Return the states of the random generators that a network may draw from."""
    on_device = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    words = np.random.get_state(legacy=False)["state"]
    numpy_state = words["key"].tobytes(), words["pos"]
    return torch.get_rng_state().numpy().tobytes(), on_device, numpy_state, random.getstate()
