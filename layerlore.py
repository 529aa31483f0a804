"""layerlore for notebooks and scripts: runs of a store, the pure numerics and the recorder, under one name.

    import layerlore

    run = layerlore.open_run("lore/")      # or layerlore.run_config("digits")
    run.tables["coresets"]                 # pandas
    run.arrays["training"]                 # xarray
    run.figures["interpretation/shape"]    # plotly
    run.card(wrong=1)                      # one image, all that the run knows of it

Every name is imported when it is asked for; `import layerlore` itself loads nothing heavy.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

_PLACES = {
    "flows.notebook": ("Card", "Run", "open_run", "preset", "run_config", "runs_of"),
    "configs.load": ("ConfigError", "load_config"),
    "storage.stores": ("StoreError",),
    "tasks.coresets": ("SELECTORS",),
    "tasks.interpreters": ("INTERPRETERS",),
    "tasks.interpreters.ice": ("fit_nmf", "nmf_codes"),
    "tasks.interpreters.vebi": ("mu_lasso", "unit_responses"),
    "tasks.interpreters.topics": ("topic_forward",),
    "tasks.interpreters.shapley": ("exact_shapley",),
    "tasks.metrics": ("METRICS",),
    "tasks.metrics.shape": ("ShapeStatistics", "shape_distance"),
    "tasks.decomposition": ("DecomposedLinear", "influential_features", "find_head"),
    "tasks.capture": ("capture_batch", "capture_inputs", "capture_layers", "split_at"),
    "tasks.detectors": ("SIMILARITIES",),
    "tasks.detectors.network_dissection": ("dissect",),
    "tasks.concepts": ("anchor_distance", "neuron_embeddings"),
    "tasks.training.lottery": ("prune",),
    "tasks.training.adversarial": ("pgd",),
    "tasks.training.ghost_norm": ("ghost_statistics",),
    "tasks.tracing": ("contributions", "influential_examples", "ridge_densities", "training_derivatives"),
    "tasks.recording": ("ReplayMismatch", "UpdateRecorder", "open_updates"),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}
__all__ = sorted(_HOME)  # from the table above


def _take_own(packages: tuple[str, ...], home: Path) -> None:
    """Load layerlore's packages from its own folder, whatever other folders of these names the path has in front.

    Raises
    ------
    ImportError : another package of the same name is loaded already
    """
    for name in packages:
        place = home / name / "__init__.py"
        loaded = sys.modules.get(name)
        if loaded is not None:
            found = Path(loaded.__file__ or "")
            if found.resolve() != place.resolve():
                raise ImportError(
                    f"package {name!r}: expected layerlore's, found {found.parent}; import layerlore before it, or "
                    "rename that folder"
                )
            continue
        spec = spec_from_file_location(name, place, submodule_search_locations=[str(place.parent)])
        if spec is None or spec.loader is None:
            raise ImportError(f"package {name!r}: expected layerlore's in {home}, found none")
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


_take_own(("configs", "flows", "storage", "tasks"), Path(__file__).resolve().parent)


def __getattr__(name: str) -> Any:  # Any: each name has a type of its own
    """Import a name when it is asked for."""
    if name == "__version__":
        try:
            return version("layerlore")
        except PackageNotFoundError:
            return "unknown"
    if name not in _HOME:
        raise AttributeError(f"module 'layerlore' has no attribute {name!r}; it has {', '.join(__all__)}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List what can be imported."""
    return [*__all__, "__version__"]
