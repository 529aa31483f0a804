"""Models by name, and the preprocessing that belongs to published weights."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from configs.imports import import_object, raised
from configs.schema import Preprocessing

if TYPE_CHECKING:
    from torch import nn


def build_model(name: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:  # Any: the builder's own
    """Build a float32 model with fresh weights drawn from `seed`; parameters and errors are those of `built_model`.

    Raises
    ------
    ValueError : the builder returns something else than a float32 network
    """
    import torch

    model = built_model(name, arguments, seed)
    for parameter, value in model.named_parameters():
        if value.is_floating_point() and value.dtype != torch.float32:  # archives and statistics are of float32
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(
                f"model {name!r}: expected float32, found {kind} for parameter {parameter}; let its builder return "
                f"`network.float()`, which also takes weights files in {kind}"
            )
    return model


def built_model(name: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:  # Any: the builder's own
    """Build a model with fresh weights drawn from `seed`, in its builder's dtype.

    Parameters
    ----------
    name : a key of `OWN`, a torchvision classification model, or an import path module:function
    arguments : keyword arguments of the builder
    seed : seed of torch's CPU generator; the generator's state is restored afterwards

    Returns
    -------
    module on the CPU, in training mode

    Raises
    ------
    ValueError : the builder fails, or returns something else than a network
    """
    import torch
    from torch import nn

    from tasks.io.randomness import seeded

    builder = find_builder(name)
    try:
        with seeded(seed, torch.device("cpu")):
            model = builder(**arguments)
    except (Exception, SystemExit) as error:  # the builder's own
        raise ValueError(f"model {name!r} with arguments {dict(arguments)}: {raised(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r}: expected torch.nn.Module from its builder, found {type(model).__name__}")
    return model


def find_builder(name: str) -> Callable[..., nn.Module]:
    """Return the builder that a model name or an import path means."""
    from tasks.io.models import OWN

    if name in OWN:
        return OWN[name]
    if ":" not in name:
        published = published_models()
        if name in published:
            return published[name]
        close = difflib.get_close_matches(name, [*OWN, *published], 3)
        hint = f"close: {', '.join(close)}" if close else "known: " + ", ".join(OWN)
        raise ValueError(
            f"model: expected a known name, found {name!r}; {hint}; any torchvision classification model goes by its "
            "own name, a model of yours by module:function"
        )
    builder = import_object(name)
    if not callable(builder):
        raise ValueError(f"model {name!r}: expected a function, found a {type(builder).__name__}")
    found: Callable[..., nn.Module] = builder
    return found


@cache
def published_models() -> dict[str, Callable[..., nn.Module]]:
    """Return torchvision's classification models by name."""
    from torchvision import models

    return {
        **{name: partial(models.get_model, name, weights=None) for name in models.list_models(module=models)},
        # Plain defaults of these two warn, because their slow initialisation will change.
        "googlenet": partial(models.googlenet, weights=None, init_weights=True),
        "inception_v3": partial(models.inception_v3, weights=None, init_weights=True),
    }


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
    from torchvision import models

    try:
        transforms = models.get_weight(name).transforms()
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
