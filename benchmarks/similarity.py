"""Similarities of 512 neurons to 20,000 words on 10,000 images: streams against whole matrices, as the authors do.

Run from the checkout: `python -m benchmarks.similarity`, or with `--images`, `--words`, `--neurons` for less. One
thread. Each side runs in a process of its own, which reports its CPU time and how far its memory rose above the inputs:
image and text features, and activations. Whole matrices need about 3 GB. `rank_reorder` is slow: name it to have it.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on both sides

import numpy as np
import torch
from torch import Tensor

from tasks.detectors.concept_side import ConceptMoments, ConceptSide
from tasks.detectors.streaming import STREAMS

NAMES = ("cos", "cos_cubed", "wpmi", "soft_wpmi", "rank_reorder")
WIDTH = 384  # of the features
CHUNK = 128  # images at a time
WORD_BLOCK = 2000  # words at a time of rank_reorder, whose words do not depend on each other


def make_inputs(n_images: int, n_words: int, n_neurons: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit features (N, e), (S, e), and activations (N, K) like pooled ReLUs, all float32 and seeded."""
    generator = torch.Generator().manual_seed(0)
    images, words = (torch.randn(n, WIDTH, generator=generator) + 0.5 for n in (n_images, n_words))
    activations = torch.randn(n_images, n_neurons, generator=generator).clamp_(min=-1).exp_()
    return images.div_(images.norm(dim=1, keepdim=True)), words.div_(words.norm(dim=1, keepdim=True)), activations


def concept_side(images: Tensor, words: Tensor) -> ConceptSide:
    """Return the concept side, which a probing set and its words need once for all snapshots and layers."""
    moments = ConceptMoments()
    for start in range(0, len(images), CHUNK):
        moments.update(images[start : start + CHUNK] @ words.T)
    return moments.side()


def stream(name: str, images: Tensor, words: Tensor, activations: Tensor) -> tuple[Tensor, float]:
    """Return the similarity from chunks of images, and the CPU seconds of the concept side."""
    start_time = time.process_time()
    side = concept_side(images, words)
    seconds = time.process_time() - start_time
    blocks = [slice(0, len(words))]
    if name == "rank_reorder":
        blocks = [slice(start, min(start + WORD_BLOCK, len(words))) for start in range(0, len(words), WORD_BLOCK)]
    parts = []
    for block in blocks:
        one = STREAMS[name](activations, side.block(block))
        for start in range(0, len(images), CHUNK):
            one.update(start, images[start : start + CHUNK] @ words[block].T)
        parts.append(torch.as_tensor(one.similarity()).float())
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], seconds


def whole_cosines(power: int, images: Tensor, words: Tensor, activations: Tensor) -> Tensor:
    """Return `cos` or `cos_cubed` with whole matrices in float32."""
    sides = []
    for matrix in (images @ words.T, activations):
        columns = (matrix - matrix.mean(dim=0)) ** 3 if power == 3 else matrix
        sides.append(columns / columns.norm(dim=0).clamp(min=1e-3 if power == 3 else 0))
    return torch.mm(sides[1].T, sides[0])


def whole_information(soft: bool, images: Tensor, words: Tensor, activations: Tensor) -> Tensor:
    """Return `wpmi` or `soft_wpmi` with whole matrices in float32."""
    top_k, a, lam, start, end = (100, 10, 1.0, 0.998, 0.97) if soft else (28, 2, 0.6, 1.0, 1.0)
    chances = torch.softmax(a * (images @ words.T), dim=1)
    best = torch.topk(activations, dim=0, k=top_k).indices
    shares = (start - torch.arange(top_k) / top_k * (start - end))[:, None]
    rows = []
    for neuron in range(activations.shape[1]):
        factors = 1 + shares * (chances[best[:, neuron]] - 1)
        rows.append(torch.log(factors + 1e-7).sum(dim=0, keepdim=True))
    joint = torch.cat(rows)
    marginal = torch.logsumexp(joint, dim=0, keepdim=True) - math.log(len(joint))
    return joint - lam * marginal


def whole_ranks(images: Tensor, words: Tensor, activations: Tensor) -> Tensor:
    """Return `rank_reorder` with the whole matrix P in float32, neuron by neuron."""
    scores = images @ words.T
    values, best = torch.topk(activations, dim=0, k=int(len(activations) * 0.05))
    rng = np.random.default_rng(0)
    orders = [torch.from_numpy(rng.permutation(len(values))) for _ in range(5)]
    rows = []
    for neuron in range(activations.shape[1]):
        target, top = values[:, neuron : neuron + 1], scores[best[:, neuron]]
        ranks = top.argsort(dim=0).argsort(dim=0)
        rising = target.flip(0)
        baseline = (target - torch.cat([target[order] for order in orders], dim=1)).abs().pow(3).mean()
        errors = (target - rising.expand(-1, ranks.shape[1]).gather(0, ranks)).abs().pow(3).mean(dim=0)
        rows.append(-errors / baseline / top.mean(dim=0).clamp(min=1e-3) ** 0.5)
    return torch.stack(rows)


WHOLE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cos": lambda *inputs: whole_cosines(1, *inputs),
    "cos_cubed": lambda *inputs: whole_cosines(3, *inputs),
    "wpmi": lambda *inputs: whole_information(False, *inputs),
    "soft_wpmi": lambda *inputs: whole_information(True, *inputs),
    "rank_reorder": whole_ranks,
}


def resident() -> int:
    """Return the bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, side: str, sizes: tuple[int, int, int], out: str) -> None:
    """Run one side in this process; write its result, CPU seconds (and those of the concept side) and peak bytes."""
    form: Any = WHOLE[name] if side == "whole" else lambda *inputs: stream(name, *inputs)  # Any: two kinds of result
    form(*make_inputs(300, 40, 3))  # what libraries allocate once
    inputs = make_inputs(*sizes)
    before, start = resident(), time.process_time()
    result = form(*inputs)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    similarity, once = result if side == "stream" else (result, 0.0)
    np.savez(out, similarity=similarity.numpy(), figures=[seconds, once, peak])


def main() -> None:
    """Print CPU time, peak memory and the largest difference of both sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["cos_cubed", "wpmi", "soft_wpmi"])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--neurons", type=int, default=512)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # side and file: run by this script itself
    options = parser.parse_args()
    sizes = (options.images, options.words, options.neurons)
    if options.one:
        measure(options.names[0], options.one[0], sizes, options.one[1])
        return
    print(f"N = {sizes[0]:,} images, S = {sizes[1]:,} words, K = {sizes[2]:,} neurons, one thread", flush=True)
    numbers = [f"--{name}={size}" for name, size in zip(("images", "words", "neurons"), sizes, strict=True)]
    for name in options.names:
        results = {}
        with TemporaryDirectory() as folder:
            for side in ("whole", "stream"):
                out = f"{folder}/{side}.npz"
                command = [sys.executable, "-m", "benchmarks.similarity", name, *numbers, "--one", side, out]
                subprocess.run(command, check=True)
                with np.load(out, allow_pickle=False) as arrays:
                    results[side] = dict(arrays)
        (seconds, _, peak), (ours, once, our_peak) = results["whole"]["figures"], results["stream"]["figures"]
        difference = np.abs(results["whole"]["similarity"] - results["stream"]["similarity"]).max()
        print(
            f"{name:>12}: CPU {ours:.1f} s ({once:.1f} s of it once for all layers) / {seconds:.1f} s, "
            f"peak {our_peak / 2**20:,.0f} / {peak / 2**20:,.0f} MiB = {our_peak / peak:.3f}, "
            f"largest difference {difference:.1e} of {np.abs(results['stream']['similarity']).max():.3g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
