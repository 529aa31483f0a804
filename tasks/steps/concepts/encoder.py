"""The pyramid encoder in steps: a network of the config, and the features of regions of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.captioner import Captioner
from configs.concepts import Concepts
from configs.schema import Config
from storage.documents import Document
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.common.networks import load_network, preprocessing_of
from tasks.steps.common.question import Shared
from tasks.steps.concepts.grids import as_maps, spatial_size, with_grids
from tasks.steps.concepts.responses import map_sizes
from tasks.steps.concepts.watched import UNKNOWN_STEP, Watched, probing_network

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.io.samples import Picture

KEY = "concepts.captioner"


def encoder_of(config: Config, shared: Shared, asked: Concepts, captioner: Captioner) -> Watched:
    """Return the network that encodes regions: of several seeds, the first training's."""
    name = captioner.encoder
    settings = probing_network(name, config.networks[name], asked.probe.size)
    training = shared.trainings.get((name, config.seeds[0]))
    return Watched(name, "encoder", UNKNOWN_STEP, settings, training)


def encoder_identity(spec: StageSpec) -> tuple[Document, Document, dict[str, str], dict[str, StageSpec]]:
    """Return parameters, settings, digests and inputs of a stage that uses the encoder of the captioner `spec`."""
    parameters = {name: spec.parameters[name] for name in ("network", "encoder_layers")}
    place = {name: value for name, value in spec.place.items() if name in ("network", "weights")}
    digests = {name: value for name, value in spec.digests.items() if name in ("code", "weights")}
    inputs = {role: given for role, given in spec.inputs.items() if role in ("data", "network")}
    return parameters, place, digests, inputs


class Encoder:
    """The pyramid encoder of a stage: its `network` with `encoder_layers`.

    Parameters
    ----------
    spec : a stage with the parameters of an encoder
    """

    def __init__(self, store: Store, spec: StageSpec, device: torch.device) -> None:
        self._model, self._device = load_network(store, spec, device), device
        self._layers = [str(layer) for layer in spec.parameters["encoder_layers"]]
        self._settings = preprocessing_of(spec.parameters["network"])

    def features(
        self, images: Sequence[Picture], masks: Sequence[NDArray[np.floating]], names: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Return the features of regions of images.

        Parameters
        ----------
        images : decoded images
        masks : of each image, (R, H, W) 0..1, of any size
        names : of the images, for errors

        Returns
        -------
        of each image, (R, features) float32
        """
        import torch

        from tasks.io.images import preprocess

        inputs = [preprocess(image, self._settings, name) for image, name in zip(images, names, strict=True)]
        return list(self.of_inputs(torch.stack(inputs), masks))

    def of_inputs(self, inputs: Tensor, masks: Iterable[NDArray[np.floating]]) -> Iterator[NDArray[np.float32]]:
        """Yield the features of the regions of each image, from inputs (n, C, h, w) of the encoder; see `features`."""
        import torch

        from tasks.detectors.pyramid import pool_regions

        maps = self._maps(inputs.to(self._device))
        for number, regions in enumerate(masks):
            at = torch.zeros(len(regions), dtype=torch.int64)
            own = [layer[number : number + 1] for layer in maps]
            yield pool_regions(own, torch.from_numpy(np.ascontiguousarray(regions)), at).float().numpy()

    def _maps(self, inputs: Tensor) -> list[Tensor]:
        """Return the maps (n, c, h, w) of all layers."""
        import torch

        from tasks.capture import capture_layers
        from tasks.splitting.outputs import find_layouts

        with torch.inference_mode():
            layouts = find_layouts(self._model, self._layers, inputs[:1])
            layouts = with_grids(self._model, layouts, tuple(inputs.shape[1:]))
            outputs = capture_layers(self._model, self._layers, inputs, layouts)
        found = []
        for layer in self._layers:
            neurons, height, width = map_sizes(layouts[layer])
            values = outputs[layer].reshape(len(inputs), height, width, neurons)
            found.append(torch.from_numpy(as_maps(values, layouts[layer].grid)))
        return found


def count_features(spec: StageSpec, survey: Survey) -> int:
    """Return the length of the features of a planned encoder, after a check that its layers are there and are maps."""
    return sum(neurons for neurons, _ in _sizes(spec, survey))


def encoder_bytes(spec: StageSpec, survey: Survey, images: int) -> int:
    """Return the memory of a pass of the encoder over some images."""
    return 6 * 4 * images * sum(neurons * positions for neurons, positions in _sizes(spec, survey))


def _sizes(spec: StageSpec, survey: Survey) -> list[tuple[int, int]]:
    """Return channels and positions of the layers of a planned encoder."""
    import torch

    from tasks.splitting.outputs import find_layouts
    from tasks.steps.common.trials import check_layers

    layers = [str(layer) for layer in spec.parameters["encoder_layers"]]

    def look(model: nn.Module, example: Tensor, images: Tensor) -> list[tuple[int, int]]:
        with torch.inference_mode():
            layouts = with_grids(model, find_layouts(model, layers, example), tuple(example.shape[1:]))
        check_layers(model, layers, images)
        sizes = [(*map_sizes(layouts[layer]), layouts[layer].grid) for layer in layers]
        return [(neurons, int(np.prod(spatial_size(height, width, grid)))) for neurons, height, width, grid in sizes]

    try:
        return survey.look(spec, f"encoder {layers}", look)
    except ValueError as error:
        raise ValueError(f"{KEY}.layers: {error}") from error
