"""The versions of a network's modules, by which their load hooks know the format of a state dict.

torch keeps them in the attribute `_metadata` of a state dict, which neither a plain dict nor a safetensors file has.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

VERSIONS = "versions"  # text of a file of weights: the versions that it needs, JSON by the module's path

Versions = Mapping[str, Mapping[str, Any]]  # Any: what a module's class keeps of its format


def version_texts(model: nn.Module) -> dict[str, str]:
    """Return the text that a file of a network's weights needs: none, where torch's own modules suffice.

    Raises
    ------
    ValueError : a module keeps something of its format that is not JSON
    """
    found = {path: dict(entry) for path, entry in _present(model).items() if not _plain(model, path, entry)}
    try:
        return {VERSIONS: json.dumps(found, sort_keys=True, separators=(",", ":"))} if found else {}
    except (TypeError, ValueError) as error:
        raise ValueError(f"the network's state dict keeps metadata that is not JSON: {error}") from None


def read_versions(texts: Mapping[str, str]) -> Versions:
    """Return the versions in the texts of a file of weights, none where it needs none."""
    found: Versions = json.loads(texts.get(VERSIONS, "{}"))
    return found


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], versions: Versions) -> None:
    """Load tensors into a network by its own modules' present versions, but for `versions`, in place."""
    state = OrderedDict(tensors)
    state._metadata = OrderedDict({**_present(model), **versions})  # type: ignore[attr-defined]  # torch keeps it there
    model.load_state_dict(state)


def current_versions(model: nn.Module) -> Versions:
    """Return the versions by which a network takes back its own state as it now is.

    One that a load hook has rebuilt in an older form says the older version; by that it would be rebuilt again.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {path: dict(entry) for path, entry in _present(model).items()}
    for path in found.keys() & modules.keys():
        found[path]["version"] = type(modules[path])._version
    return found


def _present(model: nn.Module) -> Versions:
    """Return what a network's modules say of the format that they write now."""
    return getattr(model.state_dict(), "_metadata", {})  # a hook of the user's may return a plain dict


def _plain(model: nn.Module, path: str, entry: Mapping[str, Any]) -> bool:  # Any: as in Versions
    """Say whether a module loads the same without its entry: it has no version of its own, or one of torch's."""
    try:
        kind = type(model.get_submodule(path))
    except AttributeError:  # a hook of the user's made up the path
        return False
    says = next(base for base in kind.__mro__ if "_version" in vars(base))
    return entry == {"version": kind._version} and (kind._version == 1 or says.__module__.startswith("torch.nn."))
