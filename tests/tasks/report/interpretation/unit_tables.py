"""An invented UnitResults: two ReLUs, two classes, two selectors."""

import numpy as np
import pandas as pd

from tasks.report.interpretation.unit_results import CoresetUnit, CoresetUnits, UnitImage, UnitResults

FULL = {"selector": "full data", "budget": 1.0, "units": 4.0, "samples": 100, "added": 100}
ROWS = (  # selector, repeat, budget, units of a class, classes never predicted, samples
    ("random", 0, 0.1, 1.0, 1, 10),
    ("random", 1, 0.1, 2.0, 0, 10),
    ("random", 0, 0.5, 3.5, 0, 50),
    ("random", 1, 0.5, 4.5, 0, 50),
    ("moderate", 0, 0.1, 1.5, 0, 10),
    ("moderate", 0, 0.5, 4.0, 0, 50),
)


def invented_units(*, pictures: bool = True) -> UnitResults:
    """Return the units of network "small"."""
    common = {
        "network": "small",
        "seed": 0,
        "n_classes": 2,
        "fit_seconds": 0.5,
        "shell_seconds": 1.0,
        "chain_seconds": 2.0,
    }
    sizes = [common | FULL | {"repeat": 0, "few": False, "never_predicted": 0}]
    for selector, repeat, budget, units, unseen, samples in ROWS:
        row = {"selector": selector, "repeat": repeat, "budget": budget, "units": units, "few": units < 2}
        compared = {"units_shared": 1.0, "accuracy_plain": 0.9, "accuracy_without": 0.4, "layers_compared": 1.0}
        more = {"never_predicted": unseen, "samples": samples, "added": samples - 5, "layers_skipped": 1.0}
        sizes.append(common | row | compared | more)
    coverage = [  # budget, call, units, of the full data, of both
        {"network": "small", "selector": selector, "budget": budget, "call": call, "size": size}
        | {"units": units, "units_reference": full, "units_shared": both}
        for selector in ("random", "moderate")
        for budget, call, size, units, full, both in ((0.1, 0, 8, 1.0, 0.0, 0.0), (0.1, 1, 16, 2.0, 4.0, 1.0))
    ]
    points = {"zero": ((0.0, 0), (2.0, 1), (6.0, 3), (12.0, 2)), "<b>one": ((0.0, 0), (1.0, 1))}
    paths = [
        {"network": "small", "title": title, "label": label, "class_name": name, "mu": mu, "units": units}
        for title in ("full data", "random 10 %")
        for label, (name, breakpoints) in enumerate(points.items())
        for mu, units in breakpoints
    ]
    image = UnitImage(np.full((8, 8, 3), 7, np.uint8), 42, "zero", 0.75)
    unit = CoresetUnit("<b>one", 1, 5, False, {"random 10 %": 1.25}, (image, image))
    silent = CoresetUnit("zero", 0, 2, True, {"moderate 10 %": 0.5}, ())
    shown = (CoresetUnits("small", (unit, silent), 29),) if pictures else ()
    return UnitResults("vebi", 10.0, pd.DataFrame(sizes), pd.DataFrame(coverage), pd.DataFrame(paths), shown)
