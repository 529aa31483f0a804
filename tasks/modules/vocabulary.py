"""Tokens beyond the table of an embedding: an error that names the layer, in place of torch's index error."""

from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn


def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return what `model` gives for `inputs`.

    Raises
    ------
    ValueError : a token that an embedding of the model does not have; the message names the layer
    """
    try:
        found: Tensor = model(inputs)
    except IndexError as error:
        if text := beyond_vocabulary(model, inputs):
            raise ValueError(text) from error
        raise
    return found


def beyond_vocabulary(model: nn.Module, inputs: Tensor) -> str:
    """Return which tokens an embedding does not have, where a call of `model` raised an index error; else ""."""
    found: list[str] = []
    with ExitStack() as during:
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                hook = module.register_forward_pre_hook(_Look(name, found))
                during.callback(hook.remove)
        with torch.no_grad(), suppress(IndexError):
            model(inputs.clone())
    return found[-1] if found else ""


class _Look:
    """A hook that keeps an error for tokens beyond the table."""

    def __init__(self, name: str, found: list[str]) -> None:
        self.name, self.found = name, found

    def __call__(self, module: nn.Module, given: tuple[object, ...]) -> None:
        assert isinstance(module, nn.Embedding | nn.EmbeddingBag)
        count = module.num_embeddings
        tokens = given[0] if given else None
        if isinstance(tokens, Tensor) and tokens.numel():
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= count:
                self.found.append(
                    f"layer {self.name!r}: expected tokens 0 to {count - 1} of the vocabulary, found "
                    f"{high if high >= count else low}"
                )
