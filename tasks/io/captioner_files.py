"""The file of a trained captioner, such as a published one: its tensors, and the words of its vocabulary.

A published file holds plain containers, texts, tensors and the settings of a tokenizer; nothing else is unpickled.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.io.weights import read_states, read_torch

STATE, PROPERTIES = "state_dict", "properties"
WORDS = ("indexer", PROPERTIES, "vocab", PROPERTIES, "tokens")  # where a published file holds its words
SETTINGS = ("thinc.config.Config", "confection.Config")  # dicts of a tokenizer's settings, read as plain dicts


class CaptionerFile(NamedTuple):
    """Tensors by name, and the words of the vocabulary in order; without words where the file has none."""

    tensors: dict[str, Tensor]
    words: tuple[str, ...]


def read_captioner(path: str) -> CaptionerFile:
    """Read a file of a captioner: a published .pth, or .pt and .safetensors with tensors only.

    Raises
    ------
    ValueError : a file that is missing, damaged, or holds more than tensors and plain values; one line
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"captioner: file {path} does not exist")
    if file.suffix == ".safetensors":
        return CaptionerFile(dict(read_states(path)[0].state), ())
    with torch.serialization.safe_globals([(OrderedDict, name) for name in SETTINGS]):
        content = read_torch(file)
    state = content.get(STATE, content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"captioner: file {path}: expected tensors by name in `{STATE}`, found other values")
    return CaptionerFile({str(name): tensor for name, tensor in state.items()}, _words(content, path))


def _words(content: object, path: str) -> tuple[str, ...]:
    """Return the words of a published file's vocabulary."""
    found = content.get(PROPERTIES) if isinstance(content, Mapping) else None
    for name in WORDS:
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(word, str) and word.strip() for word in found):
        raise ValueError(f"captioner: file {path}: expected words as `tokens` of its vocabulary, found other values")
    return tuple(found)
