"""Load weights from a local file into a model; only tensors are unpickled."""

import contextlib
import copy
import json
import mmap
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.nn.parameter import is_lazy

from tasks.io.wrapped import Reading, State, Versions, state_of, unwrapped, versions_of

# Errors of torch.load on truncated files, on text and on pickles of other objects than tensors.
DAMAGE = (
    *(RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, LookupError, AttributeError, TypeError),
    *(MemoryError, struct.error),  # the last: a short text file
)
# Errors of modules in their load hooks.
_UNFIT = (RuntimeError, ValueError, LookupError, AttributeError, TypeError, AssertionError)
# Keys of the weights in a training's file; the weights come before their running mean.
ENTRIES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "params_ema"),
)
MOST_NESTED = 3
EXTRA = "_extra_state"  # how the name ends under which a module keeps what is not a tensor
VERSIONS = "versions"  # text of a run's own safetensors files, as tasks.recording.versions writes it
COUNTER = "num_batches_tracked"
FEW_KEYS = 6


def load_weights(model: nn.Module, path: str) -> str:
    """Load a state dict into `model`, in place, as `load_state_dict` does.

    Parameters
    ----------
    model : the architecture of the weights
    path : .safetensors, or a torch file of tensors only (a state dict, or a dict with one in one of `ENTRIES`)

    Returns
    -------
    description of the changes that make the file fit; empty if it fits without changes

    Notes
    -----
    If a file does not fit, prefixes of torch's tools (`wrapped.PREFIXES`) and entries around the state dict are
    removed. `num_batches_tracked` counters may be missing, as in older files; then the model keeps its counters. All
    other entries must fit. Otherwise a ValueError of one line names the differences, and the model is not changed.
    """
    return load_first(model, readings(model, path), path)


def readings(model: nn.Module, path: str) -> list[Reading]:
    """Return the possible state dicts of a file for a model, the one with the fewest changes first."""
    paths = {name for name, _ in model.named_modules(remove_duplicate=False)} | model.state_dict().keys()
    return [reading for given in read_states(path) for reading in unwrapped(given, paths)]


def load_first(model: nn.Module, given: Sequence[Reading], path: str) -> str:
    """Load the first reading of a file that fits, and return a description of its changes.

    Raises
    ------
    ValueError : no reading fits
    """
    for reading in given:
        for state in _formats(model, reading.state):
            if _taken(model, state):
                return reading.undone
    own = model.state_dict().keys()
    nearest = max(given, key=lambda reading: len(own & reading.state.keys()))
    raise ValueError(
        f"weights {path}: expected the weights of the model, found {_problems(model, nearest)}; check the "
        f"architecture. {_keys(given[0], nearest)}"
    )


def read_states(path: str) -> list[Reading]:
    """Return all state dicts of a file on the CPU: the file itself, or one for each known entry."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"weights: file {path} does not exist")
    if file.suffix == ".safetensors":
        return [Reading(_read_safetensors(file))]
    content = read_torch(file)
    if found := list(_entries(content)):
        return found
    keys = f"; its keys: {_listed(list(content))}" if isinstance(content, Mapping) else ""
    raise ValueError(
        f"weights: file {file}: expected a dict of tensors by name, found a {type(content).__name__}{keys}; "
        "save `model.state_dict()`"
    )


def read_torch(file: Path) -> object:
    """Return the content of a torch file of tensors and plain containers; other pickled objects are refused."""
    _check_size(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise ValueError(
            f"file {file} is corrupted or holds more than tensors ({type(error).__name__}); "
            "for weights, save `model.state_dict()` alone"
        ) from error


def _check_size(file: Path) -> None:
    """Raise ValueError for records that may need more memory than the file's size: compressed ones, bytearrays."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError(f"file {file}: expected records of torch.save, found compressed ones; save it again")
    if file.stat().st_size:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"bytearray") >= 0:  # torch allows a pickle to create one of any length
                raise ValueError(f"file {file}: expected tensors, found a bytearray; save `model.state_dict()` alone")


def _entries(content: object, entry: tuple[str, ...] = ()) -> Iterator[Reading]:
    """Yield the state dict of a file's content, or those in its known entries."""
    if not isinstance(content, Mapping) or len(entry) > MOST_NESTED:
        return
    if _is_state(content):
        yield Reading(state_of(content, versions_of(content)), entry)
        return
    for name in ENTRIES:
        if content.get(name):
            yield from _entries(content[name], (*entry, name))


def _read_safetensors(file: Path) -> State:
    """Return the state dict of a safetensors file, with the versions of a run's file."""
    try:
        with safe_open(file, framework="pt") as stream:
            versions = (stream.metadata() or {}).get(VERSIONS)
            return state_of({name: stream.get_tensor(name) for name in stream.keys()}, _parsed(versions))  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"weights: file {file} is corrupted or not in safetensors format ({error})") from error


def _parsed(text: str | None) -> Versions | None:
    """Return the versions in a JSON text."""
    try:
        found = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return versions_of(state_of({}, found)) if isinstance(found, dict) else None


def _is_state(content: Mapping[Any, Any]) -> bool:  # Any: whatever a file holds
    """Return whether a dict holds tensors by name."""
    return all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith(EXTRA)) for key, value in content.items()
    )


def _formats(model: nn.Module, state: State) -> Iterator[State]:
    """Yield a state dict, and if it has no versions, one with the network's present versions.

    A safetensors file does not have versions. Most modules then assume their oldest format; some refuse the file.
    """
    yield state
    if versions_of(state) is None:
        yield state_of(state, versions_of(model.state_dict()))


def _taken(model: nn.Module, state: State) -> bool:
    """Load a state dict into a model if it fits; a copy tries it first, since hooks may rebuild a part."""
    same_form = {key: _shape(value) for key, value in state.items()} == _shapes(model)
    try:
        if not same_form and not _complete(_quietly(_copied(model), state)):
            return False
        return _complete(model.load_state_dict(state, strict=False))
    except _UNFIT:
        return False


def _complete(found: _IncompatibleKeys) -> bool:
    """Return whether a load is complete except for counters, which older files do not have."""
    return not found.unexpected_keys and all(key.endswith(COUNTER) for key in found.missing_keys)


def _quietly(trial: nn.Module, state: State) -> _IncompatibleKeys:
    """Load a state dict into a copy without warnings; these are shown when the network itself is loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: _IncompatibleKeys = trial.load_state_dict(state, strict=False)
    return found


def _problems(model: nn.Module, given: Reading) -> str:
    """Return in words why a state dict does not fit."""
    state, trial, problems = given.state, _copied(model), []
    own, reason = trial.state_dict(), ""
    try:
        found = _quietly(trial, state)
        missing, unexpected = list(found.missing_keys), list(found.unexpected_keys)
    except _UNFIT as error:
        missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
        reason = " ".join(str(error).split())
    missing = [key for key in missing if not key.endswith(COUNTER)]
    if missing:
        problems.append(f"{len(missing)} of {len(own)} tensors missing (first {missing[0]})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected (first {_short(unexpected[0])})")
    shapes = {key: shape for key, shape in _shapes(trial).items() if shape is not None}
    shaped = [key for key in state if key in shapes and _shape(state[key]) != shapes[key]]
    if shaped:
        first = shaped[0]
        sizes = f"file {_shape(state[first])}, model {shapes[first]}"
        problems.append(f"{len(shaped)} of another shape (first {first}: {sizes})")
    return "; ".join(problems) or reason


def _keys(first: Reading, nearest: Reading) -> str:
    """Return a sentence with the keys of a file and the changes that found them."""
    undone = f" ({nearest.undone})" if nearest.undone else ""
    return f"The file has the keys {_listed(list(first.state if not undone else nearest.state))}{undone}"


def _listed(keys: Sequence[object]) -> str:
    """Return the first of some keys, and their number, in words."""
    more = f", ... ({len(keys)})" if len(keys) > FEW_KEYS else ""
    return ", ".join(map(_short, keys[:FEW_KEYS])) + more if keys else "(none)"


def _short(key: object) -> str:
    """Return a key of a file as one short line."""
    text = " ".join(str(key).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shape(value: object) -> tuple[int, ...] | None:
    """Return the shape of a tensor, None without a shape."""
    return tuple(value.shape) if isinstance(value, Tensor) and not is_lazy(value) else None


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the shapes of a model's state dict."""
    return {key: _shape(value) for key, value in model.state_dict().items()}


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model for trials; the model itself if its tensors cannot be copied."""
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, ValueError):
        return model
