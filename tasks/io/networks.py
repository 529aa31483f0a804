"""Models by name, and the preprocessing that belongs to published weights."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

from configs.imports import import_object
from configs.schema import Preprocessing
from tasks.io.models import CifarResNet, cifar_vgg16, mlp, small_cnn
from tasks.io.randomness import seeded

OWN: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "small-cnn": small_cnn,
    "cifar-vgg16": cifar_vgg16,
    "cifar-resnet20": partial(CifarResNet, 3),
    "cifar-resnet32": partial(CifarResNet, 5),
    "cifar-resnet44": partial(CifarResNet, 7),
    "cifar-resnet56": partial(CifarResNet, 9),
}
MODELS: dict[str, Callable[..., nn.Module]] = {
    **OWN,
    **{
        name: partial(torchvision.models.get_model, name, weights=None)
        for name in torchvision.models.list_models(module=torchvision.models)
    },
    # The defaults of these two warn, because their slow initialisation will change.
    "googlenet": partial(torchvision.models.googlenet, weights=None, init_weights=True),
    "inception_v3": partial(torchvision.models.inception_v3, weights=None, init_weights=True),
}


def build_model(name: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:  # Any: the builder's own
    """Build a model with fresh weights drawn from `seed`.

    Parameters
    ----------
    name : a key of `MODELS`, or an import path module:function
    arguments : keyword arguments of the builder
    seed : seed of torch's CPU generator; the generator's state is restored afterwards

    Returns
    -------
    module on the CPU, in training mode

    Raises
    ------
    ValueError : the builder fails, or returns something else than a float32 network
    """
    builder = find_builder(name)
    try:
        with seeded(seed, torch.device("cpu")):
            model = builder(**arguments)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:  # the last three: too large
        raise ValueError(f"model {name!r} with arguments {dict(arguments)}: {' '.join(str(error).split())}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r}: expected torch.nn.Module from its builder, found {type(model).__name__}")
    for parameter, value in model.named_parameters():
        if value.is_floating_point() and value.dtype != torch.float32:  # archives and statistics are of float32
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(
                f"model {name!r}: expected float32, found {kind} for parameter {parameter}; let its builder return "
                f"`network.float()`, which also takes weights files in {kind}"
            )
    return model


def find_builder(name: str) -> Callable[..., nn.Module]:
    """Return the builder of a model name or an import path."""
    if name in MODELS:
        return MODELS[name]
    if ":" not in name:
        close = difflib.get_close_matches(name, MODELS, 3)
        hint = f"close: {', '.join(close)}" if close else "known: " + ", ".join(OWN)
        raise ValueError(
            f"model: unknown {name!r}; {hint}; any torchvision classification model goes by its own name, "
            "a model of yours by module:function"
        )
    builder = import_object(name)
    if not callable(builder):
        raise ValueError(f"model {name!r}: expected a function, found a {type(builder).__name__}")
    found: Callable[..., nn.Module] = builder
    return found


def resolve_preprocessing(preprocessing: Preprocessing | str) -> Preprocessing:
    """Fill in the settings of a named torchvision weights entry, if any; weights are not downloaded."""
    name = preprocessing if isinstance(preprocessing, str) else preprocessing.like
    if name is None:
        assert isinstance(preprocessing, Preprocessing)
        return preprocessing
    given = {} if isinstance(preprocessing, str) else preprocessing.model_dump(exclude_unset=True, exclude={"like"})
    return Preprocessing.model_validate({**_published(name), **given})


def _published(name: str) -> dict[str, Any]:  # Any: settings of several types, validated by the caller
    """Return the settings of a torchvision weights entry."""
    try:
        transforms = torchvision.models.get_weight(name).transforms()
        ((resize,), (crop,)) = (transforms.resize_size, transforms.crop_size)
        return {
            "mode": "RGB",
            "resize": resize,
            "crop": crop,
            "interpolation": transforms.interpolation.value,
            "mean": transforms.mean,
            "std": transforms.std,
        }
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            "preprocessing: expected the name of torchvision classification weights, such as "
            f"ResNet50_Weights.IMAGENET1K_V2, found {name!r}"
        ) from error
