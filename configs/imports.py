"""The user's own objects, by import path `module:name`, and the digest of their code."""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OURS = ("configs", "flows", "storage", "tasks")
_BEHIND: list[str] = []  # folders with the user's code, which this process searches last
_LOADED: dict[str, str] = {}  # digest of each of the user's modules when this process imported it


def put_behind(folders: Iterable[str]) -> None:
    """Search folders with the user's code for modules, after all others; a folder that is not there is left out."""
    for folder in folders:
        place = str(Path(folder).expanduser().absolute())
        if place not in _BEHIND:
            _BEHIND.append(place)
        if place not in sys.path:
            sys.path.append(place)
    importlib.invalidate_caches()


def behind() -> tuple[str, ...]:
    """Return the folders with the user's code, which workers search too."""
    return tuple(_BEHIND)


def import_object(path: str) -> Any:  # Any: whatever the user's module holds
    """Return the object at `module:name`; names may be dotted.

    Raises
    ------
    ValueError : no such object, or a module that cannot be imported
    """
    module_name, _, name = path.partition(":")
    if not module_name.strip(".") or module_name.startswith(".") or not name:
        raise ValueError(f"import path {path!r}: expected module:name, such as my_code:build")
    try:
        target: Any = importlib.import_module(module_name)  # Any: walked by name
        with contextlib.suppress(ValueError):  # a module without a file has no digest, and no plan asks for one
            _LOADED.setdefault(module_name, code_digest(path))
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"import path {path!r}: {error}{_clash(error, module_name)}") from error
    except (Exception, SystemExit) as error:  # the module's own
        raise ValueError(f"import path {path!r}: {raised(error)}") from error
    return target


def raised(error: BaseException) -> str:
    """Say in a line what a function of the user's raised."""
    if isinstance(error, SystemExit):
        return f"expected a result, found an exit with {error.code}"
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        return f"key {text} is missing"
    return text or f"expected a result, found {type(error).__name__} without a message"


def _clash(error: ImportError | AttributeError | None, module_name: str) -> str:
    """Return what to do where the user's code has a folder with the name of one of layerlore's packages, else ""."""
    missing = error.name if isinstance(error, ImportError) else getattr(getattr(error, "obj", None), "__name__", "")
    for name in (str(missing or "").partition(".")[0], module_name.partition(".")[0]):
        for folder in _BEHIND:
            if name in OURS and Path(folder, name).exists():
                return (
                    f"; {folder} has a folder {name}, which is also the name of a package of layerlore's: rename "
                    "yours, or move it into a package of your own and import it from there"
                )
    return ""


def code_digest(path: str) -> str:
    """Return `sha256:...` of the file of the module in `module:name` (not of what that module imports)."""
    module_name = path.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module_name)
    except ImportError as error:
        raise ValueError(f"import path {path!r}: {error}{_clash(error, module_name)}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ValueError(
            f"import path {path!r}: expected a module with a file, found {module_name!r} without one"
            f"{_clash(None, module_name) or '; put the object into a module of your own, and name its folder: `code`'}"
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
