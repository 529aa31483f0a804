"""The user's own objects, by import path `module:name`, and the digest of their code."""

import contextlib
import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

_LOADED: dict[str, str] = {}  # digest of each of the user's modules when this process imported it


def import_object(path: str) -> Any:  # Any: whatever the user's module holds
    """Return the object at `module:name`; names may be dotted."""
    module_name, _, name = path.partition(":")
    try:
        target: Any = importlib.import_module(module_name)  # Any: walked by name
        with contextlib.suppress(ValueError):  # a module without a file has no digest, and no plan asks for one
            _LOADED.setdefault(module_name, code_digest(path))
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"import path {path!r}: {error}") from error
    return target


def code_digest(path: str) -> str:
    """Return `sha256:...` of the file of the module in `module:name` (not of what that module imports)."""
    module_name = path.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module_name)
    except ImportError as error:
        raise ValueError(f"import path {path!r}: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ValueError(
            f"import path {path!r}: expected a module with a file, found {module_name!r} without one; "
            "put the object into a module of your own"
        )
    return f"sha256:{hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()}"


def check_loaded(path: str, planned: str) -> None:
    """Raise ValueError unless this process has imported the same code as the plan."""
    import_object(path)
    if _LOADED.get(path.partition(":")[0]) != planned:
        raise ValueError(
            f"import path {path!r}: expected the file that the run was planned with, found another version of it; "
            "update the file on this machine and restart the process"
        )
