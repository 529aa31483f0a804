"""The cost of a head: multiply-adds of whole networks, and measured times of the head alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tasks.splitting.replay import watching

REPEATS = 21  # timings; the result is their median


@dataclass(frozen=True)
class NetworkCost:
    """Multiply-adds of one sample.

    Attributes
    ----------
    total : multiply-adds of all products and convolutions, without those of fused attention (4 % of a ViT-B/16)
    head : multiply-adds of the full head
    depth : executed layers with weights, projections of shortcuts included
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
    layers: list[int] = []
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operation is not counted
    try:
        look = watching(model, lambda name, module, output: layers.append(_layers_of(module)))
        with look, torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(example.clone())
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    total = counter.get_total_flops() // 2 // len(example)
    return NetworkCost(total, head.in_features * head.out_features, sum(layers))


def _layers_of(module: nn.Module) -> int:
    """Return the number of layers with weights in a module itself; attention counts 2, projections in and out."""
    if isinstance(module, nn.MultiheadAttention):
        return 2
    return int(isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d))


def time_heads(layers: Sequence[nn.Module], batch: int, n_features: int) -> list[float]:
    """Measure the time of layers in turn on one thread, as at inference.

    Parameters
    ----------
    layers : in evaluation mode, on the CPU, of `n_features` inputs
    batch : number of samples

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
