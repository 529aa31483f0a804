"""What a plan must know before anything runs: sizes of data and networks, and whether they fit each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from configs.schema import AnyDataSet, Network
from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import Store
from tasks.capture import PENULTIMATE, capture_inputs, split_at
from tasks.decomposition.head import find_head
from tasks.io.manifest import check_labels, read_manifest
from tasks.io.networks import build_model, resolve_preprocessing
from tasks.io.sources import open_source
from tasks.io.weights import load_weights
from tasks.splitting.channels import ChannelLayout, LayoutError
from tasks.splitting.outputs import find_layouts
from tasks.steps.activations import Shapes, largest_output, probe
from tasks.steps.layers import wanted_layouts
from tasks.steps.manifest import data_of, survey
from tasks.steps.trials import check_inputs, check_layers, check_logits, example_input, read_examples, spread
from tasks.training.gates import find_gated_map


@dataclass(frozen=True)
class DataSurvey:
    """A data set's name, its labels and counts by split, and the keys of some samples of each split."""

    name: str
    summary: Document
    examples: Mapping[str, tuple[str, ...]]

    def of(self, split: str) -> "DataSurvey":
        """Return what networks are tried on that read one split: its samples; all where there is no such split."""
        return replace(self, examples={split: self.examples[split]}) if split in self.examples else self


@dataclass(frozen=True)
class HeadShapes:
    """Sizes of one sample: input (C, h, w), features of the head, outputs, values in the largest module's output.

    `channels` of the last map, where the network's training has gates on them; else 0.
    """

    inputs: tuple[int, ...]
    features: int
    outputs: int
    largest: int
    channels: int


def survey_data(store: Store | None, spec: StageSpec) -> DataSurvey:
    """Return what a data set holds: from its manifest where that is in the store, else from a listing."""
    data = data_of(spec)
    try:
        source = open_source(data)
        table = read_manifest(data, source)
        finished = None if store is None else find_finished(store, spec.path)
        summary = survey(data, table, source) if finished is None else finished.summary
    except (ValueError, OSError) as error:
        raise ValueError(f"data.{spec.place['name']}: {error}") from error
    examples = {
        str(split): tuple(keys.iloc[spread(len(keys))].tolist()) for split, keys in table.groupby("split")["key"]
    }
    return DataSurvey(str(spec.place["name"]), summary, examples)


def survey_network(
    name: str, network: Network, layer: str, data: AnyDataSet, found: DataSurvey, layout: str | None = None
) -> Shapes:
    """Return the sizes of a network's input, map and output, after building it and reading a few samples.

    Raises
    ------
    ValueError : wrong weights, no such layer, a sample of another mode or size, labels beyond the outputs; a layer
        whose layout is neither known nor, as `layout`, said
    """
    try:
        model, example, images = open_network(network, data, found)
        _, shapes = probe(model, layer, example, images=images, layout=layout)
        for split in found.summary["splits"].values():
            check_labels(np.array(split["labels"], np.int64), shapes.logits, found.name, data)
    except LayoutError as error:
        raise ValueError(f"interpretation.layout: networks.{name}: {error}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"networks.{name}: {' '.join(str(error).split())}") from error
    return shapes


def survey_head(name: str, network: Network, data: AnyDataSet, found: DataSurvey) -> HeadShapes:
    """Return the sizes of a network before its head, after building it and reading a few samples.

    Raises
    ------
    ValueError : wrong weights, no linear head, a sample of another mode or size, labels beyond the outputs
    """
    try:
        model, example, images = open_network(network, data, found)
        check_logits(model, images)
        head = find_head(model, torch.cat([example, images])).module
        split_at(model, PENULTIMATE, example, images=images)
        gated = network.train is not None and network.train.gates is not None
        channels = find_gated_map(model, example, images=images).n_channels if gated else 0
        for split in found.summary["splits"].values():
            check_labels(np.array(split["labels"], np.int64), head.out_features, found.name, data)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"networks.{name}: {' '.join(str(error).split())}") from error
    largest = largest_output(model, example)
    return HeadShapes(tuple(example.shape[1:]), head.in_features, head.out_features, largest, channels)


def survey_training(name: str, network: Network, data: AnyDataSet, found: DataSurvey) -> None:
    """Raise ValueError where a network cannot be trained on a data set, or not be measured.

    Its output must be (n, C) with C beyond all labels, and in evaluation mode an image must have one answer.
    """
    try:
        model, example, images = open_network(network, data, found)
        _check_state(model)
        check_logits(model, images)
        if network.train is not None and network.train.gates is not None:
            find_gated_map(model, example, images=images)
        with torch.inference_mode():
            output = model.train()(torch.cat([example, example]))
        if not isinstance(output, Tensor) or output.ndim != 2:
            kind = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(f"in training its output is {kind}, expected logits (n, C)")
        for split in found.summary["splits"].values():
            check_labels(np.array(split["labels"], np.int64), output.shape[1], found.name, data)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"networks.{name}: {' '.join(str(error).split())}") from error


def survey_traced(name: str, network: Network, layers: list[str], data: AnyDataSet, found: DataSurvey) -> int:
    """Return the number of a network's outputs, after a forward pass that looks at the calls of some layers.

    Raises
    ------
    ValueError : a layer that is called never or more than once, or takes anything but one tensor, or what it takes
        is random or depends on the batch; names the key
    """
    model, example, images = open_network(network, data, found)
    try:
        capture_inputs(model, layers, example)
    except ValueError as error:
        raise ValueError(f"tracing.layers: networks.{name}: {error}; name the layers to trace") from error
    try:
        check_inputs(model, layers, images)
    except ValueError as error:
        raise ValueError(f"networks.{name}: {error}") from error
    with torch.inference_mode():
        return int(model(example.clone()).shape[1])


def survey_layers(
    name: str, network: Network, settings: Document, data: AnyDataSet, found: DataSurvey
) -> dict[str, ChannelLayout]:
    """Return the channel layout of each named layer's output; `settings` are those of a stage of layers.

    Raises
    ------
    ValueError : wrong weights, no such layer, a sample of another mode or size; a layer whose layout is neither known
        nor said
    """
    try:
        with torch.inference_mode():
            model, example, images = open_network(network, data, found)
            layouts = find_layouts(model, settings["layers"], example, wanted_layouts(settings))
        check_layers(model, settings["layers"], images)
        return layouts
    except LayoutError as error:
        raise ValueError(f"activations.layout: networks.{name}: {error}") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"networks.{name}: {' '.join(str(error).split())}") from error


def open_network(network: Network, data: AnyDataSet, found: DataSurvey) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network with its weights, in evaluation mode, one input of noise, and a few samples as inputs."""
    keys = next(iter(found.examples.values()))
    images = read_examples(open_source(data), resolve_preprocessing(network.preprocessing), keys)
    model = build_model(network.model, network.arguments, 0)
    if network.weights is not None:
        load_weights(model, network.weights)
    if lazy := [name for name, value in model.state_dict().items() if is_lazy(value)]:
        raise ValueError(
            f"{lazy[0]} has no size before the first input; to train it, build the layer with its size, such as "
            "nn.Linear in place of nn.LazyLinear"
        )
    return model.eval().requires_grad_(False), example_input(tuple(images.shape[1:])), images


def state_bytes(network: Document) -> int:
    """Return the bytes of a model's state, from the parameters of a network and a model without storage."""
    with torch.device("meta"):
        model = build_model(network["model"], network["arguments"], 0)
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _check_state(model: nn.Module) -> None:
    """Raise unless checkpoints can hold a network's whole state."""
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"its state dict holds {name}, a {type(value).__name__}; a training keeps tensors only")
