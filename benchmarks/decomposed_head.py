"""The decomposed head against `nn.Linear` at d = 2,048, 1,000 classes, 50 features per class.

Run from the checkout: `python -m benchmarks.decomposed_head`. One thread; CPU times of both are taken in turn in one
process, in evaluation and inference mode, medians over the rounds. Memory is what one call allocates in all, freed or
not, beyond its input: more than its peak. Then the share of the head in the cost of the whole network, ResNet-50 with
random weights on 224 x 224 pixels: what a faster head can save at most.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from tasks.decomposition import DecomposedLinear

Layer = Callable[[Tensor], Tensor]

SEED = 0
PIXELS = 224
NETWORK_ROUNDS = 5


def cpu_seconds(layer: Layer, x: Tensor, calls: int = 1) -> float:
    """CPU time of one call, mean of some."""
    start = time.process_time()
    for _ in range(calls):
        layer(x)
    return (time.process_time() - start) / calls


def medians(layers: dict[str, Layer], inputs: dict[str, Tensor], rounds: int, calls: int) -> dict[str, float]:
    """Median CPU seconds by name, the layers in turn."""
    taken: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds + 1):  # the first round warms up
        for name, layer in layers.items():
            taken[name].append(cpu_seconds(layer, inputs[name], calls))
    return {name: float(np.median(times[1:])) for name, times in taken.items()}


def allocated_megabytes(layer: Layer, x: Tensor) -> float:
    """Sum of all that a call allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as trace:
        layer(x)
    allocated: int = sum(max(0, event.self_cpu_memory_usage) for event in trace.key_averages())
    return allocated / 2**20


def training_step(layer: nn.Module) -> Layer:
    """Forward and backward, with gradients to input, weight and bias."""

    def step(x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            logits: Tensor = layer(x.clone().requires_grad_())
            torch.autograd.backward(logits.square().sum())
            return logits.detach()

    return step


def make_layers(d: int, n_classes: int, k: int) -> tuple[nn.Linear, DecomposedLinear]:
    """A dense layer with random weights, and its decomposition over random sets."""
    torch.manual_seed(SEED)
    dense = nn.Linear(d, n_classes).eval()
    indices = np.argsort(np.random.default_rng(SEED).random((n_classes, d)), axis=1)[:, :k]
    return dense, DecomposedLinear.from_linear(dense, indices)


def print_heads(dense: nn.Linear, head: DecomposedLinear, batches: list[int], rounds: int) -> None:
    """Print time, memory and agreement by batch."""
    masked = head.masked_dense()
    print(f"{'batch':>6} {'dense ms':>9} {'ours ms':>8} {'ratio':>6} {'training':>9} {'MiB':>6} {'difference':>11}")
    for batch in batches:
        x = torch.randn(batch, dense.in_features)
        calls = max(1, 256 // batch)
        times = medians({"dense": dense, "ours": head}, {"dense": x, "ours": x}, rounds, calls)
        steps: dict[str, Layer] = {"dense": training_step(dense), "ours": training_step(head)}
        trained = medians(steps, {"dense": x, "ours": x}, max(3, rounds // 4), calls)
        difference = float((head(x) - masked(x)).abs().max())
        print(
            f"{batch:6} {1e3 * times['dense']:9.3f} {1e3 * times['ours']:8.3f} {times['ours'] / times['dense']:6.3f} "
            f"{trained['ours'] / trained['dense']:9.3f} {allocated_megabytes(head, x):6.2f} {difference:11.1e}"
        )


def print_share(dense: nn.Linear, head: DecomposedLinear, batches: list[int]) -> None:
    """Print what the head takes of a whole ResNet-50."""
    network = torchvision.models.resnet50(weights=None).eval()
    for batch in batches:
        x, images = torch.randn(batch, dense.in_features), torch.randn(batch, 3, PIXELS, PIXELS)
        layers: dict[str, Layer] = {"dense": dense, "ours": head, "network": network}
        times = medians(layers, {"dense": x, "ours": x, "network": images}, NETWORK_ROUNDS, 1)
        saved = (times["dense"] - times["ours"]) / times["network"]
        print(
            f"ResNet-50, batch {batch}: {1e3 * times['network']:.0f} ms, of which the dense head is "
            f"{times['dense'] / times['network']:.2%}; decomposing it saves {saved:.2%} of the network's time"
        )


def main() -> None:
    """Print multiply-adds, times, memory and the head's share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--network-batches", type=int, nargs="*", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dense, head = make_layers(options.features, options.classes, options.k)
    full, own = options.classes * options.features, options.classes * options.k
    print(f"d = {options.features:,}, C = {options.classes:,}, k = {options.k}, one thread, {options.rounds} rounds")
    print(f"multiply-adds per image: {full:,} dense, {own:,} decomposed ({own / full:.3f})")
    with torch.inference_mode():
        print_heads(dense, head, options.batches, options.rounds)
        print_share(dense, head, options.network_batches)


if __name__ == "__main__":
    main()
