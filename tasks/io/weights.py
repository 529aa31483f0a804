"""Weights from a local file into a model, without unpickling anything but tensors."""

import contextlib
import mmap
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tasks.io.digests import file_sha256

# What torch.load raises on files cut short, on text and on pickles of other things than tensors.
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, LookupError, AttributeError, TypeError),
    MemoryError,
)


def load_weights(model: nn.Module, path: str) -> None:
    """Load a state dict into `model`, in place.

    Parameters
    ----------
    model : the architecture that the weights belong to
    path : .safetensors, or a torch file of tensors only (a state dict, or a dict with one under `state_dict`)

    Notes
    -----
    The prefix `module.` of data-parallel training is removed, and missing `num_batches_tracked` counters (which
    older files lack) are left as they are. Everything else must fit: a ValueError of one line says what does not.
    """
    own = model.state_dict()
    given = read_state(path)
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    shaped = [key for key in given if key in own and given[key].shape != own[key].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(own)} tensors missing (first {missing[0]})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected (first {unexpected[0]})")
    if shaped:
        first = shaped[0]
        sizes = f"file {tuple(given[first].shape)}, model {tuple(own[first].shape)}"
        problems.append(f"{len(shaped)} of another shape (first {first}: {sizes})")
    if problems:
        raise ValueError(f"weights {path} do not fit the model: {'; '.join(problems)}; is it another architecture?")
    model.load_state_dict({**own, **given})


def read_state(path: str) -> dict[str, Tensor]:
    """Read a state dict to the CPU, without the prefix `module.`."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"weights: file {path} does not exist")
    state = _read_safetensors(file) if file.suffix == ".safetensors" else _state(file)
    prefix = "module."
    if state and all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def read_torch(file: Path) -> object:
    """Read a torch file of tensors and plain containers; arbitrary pickled objects are refused."""
    _check_size(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise ValueError(
            f"file {file} is corrupted or holds more than tensors ({type(error).__name__}); "
            "for weights, save `model.state_dict()` alone"
        ) from error


def weights_digest(path: str) -> str:
    """Return `sha256:...` of a weights file."""
    return file_sha256(path)


def _check_size(file: Path) -> None:
    """Raise ValueError for what may take more memory than the file's own size: packed records, bytearrays by length."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError(f"file {file} has compressed records, which torch.save does not write; save it anew")
    if file.stat().st_size:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"bytearray") >= 0:  # torch lets a pickle make one of any length
                raise ValueError(f"file {file} holds more than tensors, a bytearray; save `model.state_dict()` alone")


def _state(file: Path) -> dict[str, Tensor]:
    """Read the state dict of a torch file."""
    content = read_torch(file)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not _is_state(content):
        raise ValueError(f"weights: file {file} holds a {type(content).__name__}, expected a dict of tensors by name")
    return dict(content)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    try:
        state: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"weights: file {file} is corrupted or not in safetensors format ({error})") from error
    return state


def _is_state(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Tell whether something is a dict of tensors by name."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )
