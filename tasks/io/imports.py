"""Objects of the user's own, by import path `module:name`, and the digest of their code."""

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any


def import_object(path: str) -> Any:  # Any: whatever the user's module holds
    """Return the object at `module:name`; names may be dotted."""
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)  # Any: walked by name
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"import path {path!r}: {error}") from error
    return found


def code_digest(path: str) -> str:
    """Return `sha256:...` of the file of the module in `module:name` (not of what that module imports)."""
    module_name = path.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module_name)
    except ImportError as error:
        raise ValueError(f"import path {path!r}: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ValueError(f"import path {path!r}: module {module_name!r} has no file")
    return f"sha256:{hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()}"
