"""The rows of each network, seed and detector: what one choice on the page selects."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from tasks.figures.concepts.holdings import MAX_LAYERS, snapshot_labels
from tasks.figures.views import spread_out
from tasks.report.concepts.results import COLUMNS, ConceptResults

MAX_GROUPS = 24


@dataclass(frozen=True)
class Group:
    """The rows of one network, seed and detector.

    Attributes
    ----------
    network, seed, detector : which; `seed` as it is printed
    tables : the tables that have these three columns, by name
    """

    network: str
    seed: str
    detector: str
    tables: dict[str, pd.DataFrame]

    @property
    def key(self) -> tuple[str, str, str]:
        """The options that select it."""
        return self.network, self.seed, self.detector

    @property
    def title(self) -> str:
        """Name it in a line."""
        return f"{self.network}, seed {self.seed}, {self.detector}"

    @property
    def labels(self) -> dict[int, str]:
        """Name of each snapshot, in order."""
        return snapshot_labels(self.tables["monitor"])

    def by_layer(self, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield layer and rows of a table, at most `MAX_LAYERS` evenly spread, in order of depth."""
        rows = self.tables[name]
        known = set(rows["layer"])
        layers = [layer for layer in dict.fromkeys(self.tables["monitor"]["layer"]) if layer in known]
        for i in spread_out(len(layers), MAX_LAYERS):
            yield str(layers[i]), rows[rows["layer"] == layers[i]]


def groups_of(results: ConceptResults) -> tuple[list[Group], int]:
    """Split the tables; return the first `MAX_GROUPS` groups, in the order of the monitor, and how many there are."""
    keys = ["network", "seed", "detector"]
    names = [name for name, columns in COLUMNS.items() if set(keys) <= set(columns) and name != "truth"]
    tables: dict[str, pd.DataFrame] = {name: getattr(results, name) for name in names}
    split = {name: dict(list(table.groupby(keys, sort=False))) for name, table in tables.items()}
    found = list(split["monitor"])
    order = {detector: i for i, detector in enumerate(results.facts.detectors)}
    pairs = list(dict.fromkeys(key[:2] for key in found))
    found.sort(key=lambda key: (pairs.index(key[:2]), order.get(str(key[2]), len(order))))
    groups = [
        Group(
            network=str(key[0]),
            seed=str(key[1]),
            detector=str(key[2]),
            tables={name: split[name].get(key, table[:0]) for name, table in tables.items()},
        )
        for key in found[:MAX_GROUPS]
    ]
    return groups, len(found)
