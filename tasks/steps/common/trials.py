"""Trials of networks on a few images: an image must have one answer, alone and in any batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Preprocessing
from storage.specs import StageSpec
from storage.stores import Store
from tasks.io.sources import Source, open_source
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.samples import read_batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.modules.rows import Inputs

TRIED = 16  # number of real images in a trial
TRIED_BYTES = 2 * 2**20  # bytes of these images; at least two images are taken


def example_input(shape: tuple[int, ...]) -> Tensor:
    """Return one input (1, C, h, w) of noise, for a trial of a network."""
    import torch

    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))


def example_of(inputs: Tensor) -> Tensor:
    """Return one input for a trial of a network: noise of the images' shape; of other inputs the first, as it is."""
    return example_input(tuple(inputs.shape[1:])) if inputs.ndim == 4 else inputs[:1].cpu()


def spread(n: int, count: int = TRIED) -> NDArray[np.int64]:
    """Return at most `count` positions of n, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))


def read_examples(source: Source, preprocessing: Preprocessing, keys: Sequence[str]) -> Tensor:
    """Return images spread over `keys`, (n, C, h, w); fewer where they are large.

    An image that cannot be read, or has another size than the first, is left out; the stage that needs it reports it.
    """
    import torch

    images = [read_batch(source, preprocessing, keys[:1]).inputs]
    count = max(2, min(TRIED, TRIED_BYTES // images[0].nbytes))
    for at in spread(len(keys), count)[1:]:
        try:
            inputs = read_batch(source, preprocessing, [keys[at]]).inputs
        except (ValueError, OSError):
            continue
        if inputs.shape == images[0].shape:
            images.append(inputs)
    return torch.cat(images)


def example_images(store: Store, spec: StageSpec) -> Tensor:
    """Return a few images of a stage's split as its network's input."""
    manifest = spec.inputs["data"]
    keys = positions(store, manifest.path, spec.parameters["split"])["key"].tolist()
    return read_examples(open_source(data_of(manifest)), preprocessing_of(spec.parameters["network"]), keys)


def check_logits(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError where a network keeps a state, or its output is random in evaluation or depends on the batch."""
    from tasks.splitting.answers import check_answers
    from tasks.splitting.state import check_state

    check_state(model, images)
    check_answers(lambda batch: _outputs(model(batch), len(batch)), images)


def check_layers(model: nn.Module, layers: Sequence[str], images: Tensor) -> None:
    """Raise ValueError where outputs of the network or of named layers are random or depend on the batch."""
    from tasks.splitting.answers import check_answers
    from tasks.splitting.outputs import layer_outputs

    check_logits(model, images)

    def answer(batch: Tensor) -> Mapping[str, Tensor]:
        return {f"layer {layer!r}": value for layer, value in layer_outputs(model, layers, batch).items()}

    check_answers(answer, images)


def check_inputs(model: nn.Module, layers: Sequence[str], images: Tensor) -> None:
    """Raise ValueError where the network's output or inputs of named layers are random or depend on the batch."""
    from tasks.capture import capture_inputs
    from tasks.splitting.answers import check_answers

    check_logits(model, images)
    check_answers(
        lambda batch: {
            f"input of layer {name!r}": _by_sample(value)
            for name, value in capture_inputs(model, layers, batch).items()
        },
        images,
    )


def _by_sample(value: Inputs) -> Tensor:
    """Return a layer's inputs by sample; of ragged rows their sum and sum of squares, which know no padding."""
    import torch

    from tasks.modules.rows import Rows

    if not isinstance(value, Rows):
        return value
    rows = value.padded()
    return torch.stack([rows.sum(dim=1), rows.square().sum(dim=1)], dim=1)


def _outputs(output: object, n: int) -> dict[str, Tensor]:
    """Return the tensors with an axis of n images in the output of a network, which may have any structure."""
    from torch import Tensor

    if isinstance(output, Tensor):
        named: list[tuple[object, object]] = [("", output)]
    elif isinstance(output, Mapping):
        named = list(output.items())
    else:
        named = list(enumerate(output)) if isinstance(output, list | tuple) else []
    return {
        f"output {name}".strip(): value
        for name, value in named
        if isinstance(value, Tensor) and value.ndim and len(value) == n
    }
