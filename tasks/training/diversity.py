"""The diversity regulariser (Concept-Monitor, section 4): L = CE + beta d_anchor, on each mini-batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.concepts import anchor_distance, neuron_embeddings
from tasks.detectors import SIMILARITIES
from tasks.detectors.activity import dead
from tasks.splitting.channels import ChannelLayout
from tasks.splitting.outputs import find_layouts
from tasks.training.batches import Positions
from tasks.training.neutral import Neutral


def batch_distance(activations: Tensor, images: Tensor, words: Tensor, temperature: float) -> Tensor:
    """Measure how far a layer's neurons are from all words, with a mini-batch as probing set.

    Parameters
    ----------
    activations : (m, K) float, pooled; the result is differentiable in them
    images : (m, e) float, unit rows, of the batch's images in the space of an image-text model
    words : (S, e) float, unit rows
    temperature : of the embedding, above 0

    Returns
    -------
    () float, d_anchor of the neurons that are not dead: 0 where all are dead, NaN for activations that are not finite

    Notes
    -----
    The similarity is the cosine of the cubed columns, standardised first, so that neither the scale of the activations
    nor the size of the batch matters. A neuron is dead where it is equal on all images of the batch.
    """
    if not bool(activations.isfinite().all()):
        return activations.sum() * float("nan")
    alive = ~dead(activations.detach())
    if not bool(alive.any()):
        return activations.sum() * 0.0
    similarity = SIMILARITIES["cos_cubed"](activations[:, alive], images @ words.T, min_norm="scale-free")
    embeddings = neuron_embeddings(similarity, words, temperature)
    assert isinstance(embeddings, Tensor)
    return anchor_distance(embeddings, words)


class Diversity(Neutral):
    """The regulariser as the companion of a training.

    Parameters
    ----------
    module : the module whose outputs' channels are the neurons, in a layout
    beta : weight of the distance in the loss
    temperature : of the embedding
    words : (S, e) unit rows, on the device of the network
    images : (n, e) unit rows, of the training images as they are in the data set, without augmentation
    ids : (n,) int64 ascending, sample ids of `images`
    """

    def __init__(
        self,
        module: nn.Module,
        layout: ChannelLayout,
        *,
        beta: float,
        temperature: float,
        words: Tensor,
        images: Tensor,
        ids: Positions,
    ) -> None:
        self._module, self._layout, self._beta, self._temperature = module, layout, beta, temperature
        self._words, self._images, self._ids = words, images, ids
        self._batch = images[:0]
        self._pooled: Tensor | None = None

    def before_step(self, ids: Positions) -> None:
        """Pick the features of the batch's images.

        Raises
        ------
        ValueError : an image without features
        """
        at = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        unknown = ids[self._ids[at] != ids]
        if len(unknown):
            raise ValueError(f"diversity: expected features of every training image, found none of sample {unknown[0]}")
        self._batch = self._images[torch.from_numpy(at)].to(self._words.device)

    @contextmanager
    def during(self, labels: Tensor) -> Iterator[None]:
        """Keep the pooled activations of the first m images in the block, of the last forward pass."""

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            common = self._layout.common(output[: len(labels)])
            self._pooled = common.flatten(1, -2).mean(1) if common.ndim > 2 else common

        handle = self._module.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def loss(self) -> Tensor:
        """Return beta d_anchor of the last forward pass."""
        assert self._pooled is not None
        pooled, self._pooled = self._pooled, None  # whose graph should not outlive the step
        return self._beta * batch_distance(pooled, self._batch, self._words, self._temperature)


def prepare_diversity(
    settings: Mapping[str, Any], model: nn.Module, example: Tensor, images: Tensor
) -> Callable[[nn.Module], Diversity]:  # Any: keywords of Diversity, `layer` and `layout`
    """Find the layer's layout; return a function that attaches the regulariser.

    Raises
    ------
    ValueError : the network does not have the layer, or the axis of its channels is not known
    """
    rest = dict(settings)
    layer, wanted = rest.pop("layer"), rest.pop("layout")
    try:
        layout = find_layouts(model, [layer], example, {} if wanted is None else {layer: wanted})[layer]
    except ValueError as error:
        raise ValueError(f"diversity: {error}") from error

    def attach(trained: nn.Module) -> Diversity:
        device = next(trained.parameters()).device
        words: Tensor = rest["words"]
        return Diversity(trained.get_submodule(layer), layout, **{**rest, "words": words.to(device)})

    return attach
