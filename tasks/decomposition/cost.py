"""What a head costs: multiply-adds of whole networks, and measured times of the head alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from tasks.splitting.replay import watching

REPEATS = 21  # timings of which the median counts


@dataclass(frozen=True)
class NetworkCost:
    """Multiply-adds of one sample.

    Attributes
    ----------
    total : of all linear and convolution layers; what attention multiplies besides is not counted
    head : of the full head
    depth : layers with weights that are executed, shortcuts' projections too
    """

    total: int
    head: int
    depth: int


def count_multiply_adds(model: nn.Module, head: nn.Linear, example: Tensor) -> NetworkCost:
    """Count the multiply-adds of a network for one sample.

    Parameters
    ----------
    model : in evaluation mode
    head : its final layer
    example : (n, C, H, W)
    """
    counts: list[int] = []

    def count(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and isinstance(module, nn.Linear):
            counts.append(output.numel() * module.in_features)
        elif isinstance(output, Tensor) and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            counts.append(output.numel() * module.weight[0].numel())

    with torch.inference_mode(), watching(model, count):
        model(example)
    return NetworkCost(sum(counts) // len(example), head.in_features * head.out_features, len(counts))


def time_heads(layers: Sequence[nn.Module], batch: int, n_features: int) -> list[float]:
    """Measure layers in turn on one thread, each as it is at inference.

    Parameters
    ----------
    layers : in evaluation mode, on the CPU, of `n_features` inputs
    batch : samples

    Returns
    -------
    median milliseconds of each layer
    """
    x = torch.randn(batch, n_features, generator=torch.Generator().manual_seed(0))
    taken: list[list[float]] = [[] for _ in layers]
    with torch.inference_mode():
        for _ in range(REPEATS + 1):  # the first round warms up
            for layer, times in zip(layers, taken, strict=True):
                started = time.perf_counter()
                layer(x)
                times.append(1000 * (time.perf_counter() - started))
    return [median(times[1:]) for times in taken]
