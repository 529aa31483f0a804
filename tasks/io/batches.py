"""Batches of network inputs, decoded and prepared in threads while the network runs on the batch before."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema import Preprocessing
from tasks.io.images import preprocess
from tasks.io.samples import Sample
from tasks.io.sources import Source


@dataclass(frozen=True)
class Batch:
    """Some samples as a network takes them."""

    images: Tensor  # (n, C, h, w) float32
    digests: list[str]  # of what each was decoded from


def load_batches(
    source: Source,
    keys: Sequence[str],
    preprocessing: Preprocessing,
    *,
    size: int,
    threads: int = 1,
    ahead: int = 2,
) -> Iterator[Batch]:
    """Read samples in batches, up to `ahead` batches in advance.

    Parameters
    ----------
    source : the data set
    keys : of the samples, in the order wanted
    preprocessing : with its weights entry resolved
    size : samples in a batch; the last one may be shorter
    threads : threads that preprocess (those that decode are the source's)
    ahead : batches in memory besides the one given out

    Yields
    ------
    Batch, in the order of `keys`
    """
    chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
    with ThreadPoolExecutor(1, "batches") as reader, ThreadPoolExecutor(threads, "prepare") as workers:
        waiting: deque[Future[Batch]] = deque()
        try:
            for chunk in chunks:
                waiting.append(reader.submit(_load, source, chunk, preprocessing, workers))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def make_batch(
    samples: Sequence[Sample], keys: Sequence[str], preprocessing: Preprocessing, workers: ThreadPoolExecutor
) -> Batch:
    """Prepare decoded samples; images of different sizes are an error that names the sample."""
    images = list(workers.map(lambda sample, key: preprocess(sample.image, preprocessing, key), samples, keys))
    for image, key in zip(images, keys, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"sample {key}: image of size {tuple(image.shape[1:])} in a batch of size {tuple(images[0].shape[1:])} "
                f"(sample {keys[0]}); set `resize` and `crop` in the network's preprocessing"
            )
    return Batch(torch.stack(images), [sample.digest for sample in samples])


def _load(source: Source, keys: Sequence[str], preprocessing: Preprocessing, workers: ThreadPoolExecutor) -> Batch:
    """Read and prepare one batch."""
    return make_batch(source.read(keys), keys, preprocessing, workers)
