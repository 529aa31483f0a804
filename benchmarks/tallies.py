"""Tallies of Network Dissection at 512 units and masks of 112 x 112: packed bits against a loop over units.

Run from the checkout: `python -m benchmarks.tallies`. One thread. Both sides take the same maps, masks and thresholds
(quantile .005) in turn, in one process; the CPU time is per image, without the search for thresholds. The loop enlarges
each unit's map by torch, and multiplies float masks of units and labels, as published implementations do. Memory is the
peak of what NumPy allocates during an update, in a separate pass.
"""

# ruff: noqa: E402 (the thread count is set before the libraries load)

import argparse
import os
import time
import tracemalloc

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries below are loaded: one thread on both sides

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tasks.detectors.tallies import Tallies
from tasks.detectors.thresholds import TopValues

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]

N_LABELS = 140
SIZE = 112
LABELS = np.r_[-1, np.arange(N_LABELS) % 6]  # six categories


def make_inputs(n_images: int, n_units: int, size: int) -> tuple[Floats, Longs]:
    """Return smooth maps (n, K, h, w) behind a ReLU, and masks (n, 3, 112, 112): regions, and a whole image's label."""
    rng = np.random.default_rng(0)
    rough = torch.from_numpy(rng.standard_normal((n_images, n_units, -(-size // 2), -(-size // 2)), dtype=np.float32))
    maps = F.interpolate(rough, size=(size, size), mode="bilinear").relu_().numpy()
    masks = np.kron(rng.integers(0, N_LABELS + 1, (n_images, 3, 3, 2)), np.ones((SIZE, SIZE), dtype=np.int64))
    masks = np.ascontiguousarray(masks[..., ::3, ::2])
    masks[:, 2] = rng.integers(0, N_LABELS + 1, (n_images, 1, 1))
    return maps, masks


class LoopTallies:
    """The same counts with a float mask per unit and per label."""

    def __init__(self, threshold: Doubles) -> None:
        self.threshold = threshold.astype(np.float32)
        self.intersection = np.zeros((len(threshold), N_LABELS + 1))
        self.label_area = np.zeros(N_LABELS + 1)
        self.unit_area = np.zeros((len(threshold), 6))

    def update(self, maps: Floats, masks: Longs) -> None:
        """Count the pixels of a chunk, image by image and unit by unit."""
        for image, planes in zip(maps, masks, strict=True):
            numbers = np.unique(planes)
            numbers = numbers[numbers > 0]
            regions = np.stack([(planes == number).any(axis=0) for number in numbers]).astype(np.float32)
            self.label_area[numbers] += regions.sum(axis=(1, 2))
            categories = np.unique(LABELS[numbers])
            flat = regions.reshape(len(numbers), -1)
            for unit, limit in enumerate(self.threshold):
                small = torch.from_numpy(image[unit])[None, None]
                large = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0].numpy()
                mask = (large > limit).astype(np.float32)
                self.unit_area[unit, categories] += mask.sum()
                self.intersection[unit, numbers] += flat @ mask.ravel()


def cpu_seconds(tallies: Tallies | LoopTallies, maps: Floats, masks: Longs) -> float:
    """CPU time of one update."""
    start = time.process_time()
    tallies.update(maps, masks)
    return time.process_time() - start


def peak_megabytes(tallies: Tallies | LoopTallies, maps: Floats, masks: Longs) -> float:
    """Largest amount that NumPy allocated at once during one update, beyond the inputs."""
    tracemalloc.start()
    tallies.update(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Print CPU time per image, their ratio, and the largest difference of the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--maps", type=int, nargs="*", default=[7, 14, 28], help="sides of the low-resolution maps")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.units} units, masks {SIZE} x {SIZE}, quantile .005, median of {options.rounds} rounds, one thread")
    for size in options.maps:
        maps, masks = make_inputs(options.images, options.units, size)
        threshold = TopValues(options.images * size * size, 0.005).update(maps).threshold()
        taken: dict[str, list[float]] = {"packed": [], "loop": []}
        for _ in range(options.rounds):
            packed, loop = Tallies(LABELS, threshold), LoopTallies(threshold)
            taken["packed"].append(cpu_seconds(packed, maps, masks))
            taken["loop"].append(cpu_seconds(loop, maps, masks))
        ours, theirs = (float(np.median(seconds)) / options.images for seconds in taken.values())
        peaks = [peak_megabytes(each, maps[:2], masks[:2]) for each in (packed, loop)]
        result, counts = packed.arrays(), LoopTallies(threshold)
        counts.update(maps[:4], masks[:4])
        same = Tallies(LABELS, threshold).update(maps[:4], masks[:4]).arrays()
        difference = max(np.abs(same[name] - getattr(counts, name)).max() for name in ("intersection", "unit_area"))
        on = (maps.max(axis=(2, 3)) > threshold).mean()
        most = result["unit_area"].max()
        print(
            f"maps {size:>2} x {size:<2}: {ours * 1e3:6.2f} / {theirs * 1e3:6.2f} ms CPU an image, "
            f"{theirs / ours:.1f} times faster, peak {peaks[0]:.1f} / {peaks[1]:.1f} MiB; "
            f"{on:.0%} of the units are on, largest difference {difference:.0f} of {most} pixels",
            flush=True,
        )


if __name__ == "__main__":
    main()
