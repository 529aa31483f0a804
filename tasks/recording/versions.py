"""The versions of a network's modules, by which load hooks know the format of a state dict.

torch keeps them in the attribute `_metadata` of a state dict. A plain dict and a safetensors file do not have it.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

VERSIONS = "versions"  # key of a text in a file of weights: its versions, JSON by the module's path

Versions = Mapping[str, Mapping[str, Any]]  # Any: facts of a module's class about its format


def version_texts(model: nn.Module) -> dict[str, str]:
    """Return the texts for a file of a network's weights; empty if all modules are torch's.

    Raises
    ------
    ValueError : the metadata of a module are not JSON
    """
    found = {path: dict(entry) for path, entry in _present(model).items() if not _plain(model, path, entry)}
    try:
        return {VERSIONS: json.dumps(found, sort_keys=True, separators=(",", ":"))} if found else {}
    except (TypeError, ValueError) as error:
        raise ValueError(f"model: expected JSON as metadata of its state dict, found others: {error}") from None


def read_versions(texts: Mapping[str, str]) -> Versions:
    """Return the versions in the texts of a file of weights, empty without such a text."""
    found: Versions = json.loads(texts.get(VERSIONS, "{}"))
    return found


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], versions: Versions) -> None:
    """Load tensors into a network in place, by its modules' present versions except for `versions`."""
    state = OrderedDict(tensors)
    state._metadata = OrderedDict({**_present(model), **versions})  # type: ignore[attr-defined]  # torch keeps it there
    model.load_state_dict(state)


def current_versions(model: nn.Module) -> Versions:
    """Return the versions by which a network loads its present state.

    A load hook may have rebuilt a module in an older form. Such a module states the older version, which would rebuild
    it again.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {path: dict(entry) for path, entry in _present(model).items()}
    for path in found.keys() & modules.keys():
        found[path]["version"] = type(modules[path])._version
    return found


def _present(model: nn.Module) -> Versions:
    """Return the versions that a network's modules write now."""
    return getattr(model.state_dict(), "_metadata", {})  # a user's hook may return a plain dict


def _plain(model: nn.Module, path: str, entry: Mapping[str, Any]) -> bool:  # Any: as in Versions
    """Return whether a module loads equally without its entry: it has no version, or one of torch's."""
    try:
        kind = type(model.get_submodule(path))
    except AttributeError:  # a user's hook added the path
        return False
    says = next(base for base in kind.__mro__ if "_version" in vars(base))
    return entry == {"version": kind._version} and (kind._version == 1 or says.__module__.startswith("torch.nn."))
