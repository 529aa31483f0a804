"""A preview of an explanation: approximate contributions of all updates from the index, without the archive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.load import ConfigError
from configs.tracing import Tracing
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, find_finished, open_finished
from storage.stores import Store
from tasks.figures.views import in_percent
from tasks.steps.tracing.aggregate import class_gammas
from tasks.steps.tracing.explain import Explanation, class_name
from tasks.steps.tracing.index import layers_of
from tasks.steps.tracing.ondemand import Followed, InMemory, Recorded, Request, explain_now
from tasks.steps.tracing.projection import described_targets
from tasks.steps.tracing.targets import as_float

if TYPE_CHECKING:
    from torch import nn

    from tasks.recording.sources import UpdateSource
    from tasks.steps.tracing.index import Layer
    from tasks.tracing.basis import Calibration, Directions

Doubles = NDArray[np.float64]


@dataclass
class IndexedProjection:
    """Makes the contributions of a query from an index; keeps what is to be said of each layer.

    Parameters
    ----------
    index : spec of a finished index
    aggregate : a finished aggregate of the same training, if there is one
    """

    store: Store
    index: StageSpec
    aggregate: FinishedStage | None = None
    notes: dict[str, str] = field(default_factory=dict)
    shares: dict[str, Doubles] = field(default_factory=dict)  # by layer: gamma of each group of classes

    def __call__(self, spec: StageSpec, source: UpdateSource, model: nn.Module, query: Followed) -> InMemory:
        """Return the approximate contributions of all updates to a query."""
        import torch

        stage, basis = open_finished(self.store, self.index), open_finished(self.store, self.index.inputs["basis"])
        device = query.images.device
        references = torch.from_numpy(basis.read("input").astype(np.float32)).to(device)
        asked = spec.place["layers"]
        queried = layers_of(self.index, source, self.store, query.images)
        of_references = layers_of(self.index, source, self.store, references)
        arrays: dict[str, NDArray[np.float32]] = {}
        layouts: dict[str, ArrayLayout] = {}
        targets = []
        for layer, others in zip(queried, of_references, strict=True):
            name = layer.target.name
            if asked != "all" and name not in asked:
                continue
            targets.append(layer.target)
            made = self._layer(stage, basis, layer, others.directions)
            made |= _ends(source, layer)
            for kind, values in made.items():
                axes = ("step", "query") if values.ndim == 2 else ("query",)
                layouts[f"{kind}.{name}"] = ArrayLayout(values.shape, "float32", axes, len(values), len(values))
                arrays[f"{kind}.{name}"] = values.astype(np.float32)
            if self.aggregate is not None and name in self.aggregate.summary["layers"]:
                self.shares[name] = class_gammas(self.aggregate, name, layer.directions)[:, :, 0].sum(axis=0)
        return InMemory(Layout(1, layouts), described_targets(targets), arrays)

    def _layer(
        self, stage: FinishedStage, basis: FinishedStage, layer: Layer, references: Directions
    ) -> dict[str, Doubles]:
        """Return the approximate gammas of a layer, and note how good they are."""
        from tasks.tracing.basis import Basis

        name = layer.target.name
        axes = Basis(basis.read(f"basis.{name}").astype(np.float64))
        place, square = axes.coefficients(references.products(layer.directions).T), layer.directions.squares()
        share = float(axes.share(place, square)[0])
        gamma = stage.read(f"coefficient.{name}").astype(np.float64) @ place.T
        sizes = stage.read(f"size.{name}").astype(np.float64)
        calibration = calibration_of(stage, basis, name)
        error = calibration.scale(share) * float(np.sqrt(square[0] * np.mean(sizes**2)))
        usual = float(np.sqrt(np.mean(gamma**2)))
        self.notes[name] = note(name, share, calibration, error / usual if usual else 0.0)
        return {"gamma": gamma, "norm": np.zeros_like(gamma)}


def calibration_of(stage: FinishedStage, basis: FinishedStage, name: str) -> Calibration:
    """Return the errors of the held-out queries of an index at a layer."""
    from tasks.tracing.basis import Basis, Calibration

    if f"square.{name}" not in basis.layout.arrays:
        return Calibration(np.empty(0), np.empty(0), np.empty(0))
    square, place = (basis.read(f"{key}.{name}").astype(np.float64) for key in ("square", "place"))
    steps = np.count_nonzero(stage.read(f"size.{name}")) or 1
    error, exact = np.sqrt(stage.read(f"errors.{name}").astype(np.float64).sum(axis=0) / steps).T
    return Calibration(Basis(np.empty((0, 0))).share(place, square), error, exact)


def note(name: str, share: float, calibration: Calibration, error: float) -> str:
    """Return what is to be said of a layer's approximate gammas.

    Parameters
    ----------
    share : of the query's direction in the span of the index
    error : expected error of a step's gamma over the usual gamma of the query
    """
    held = f" (held-out queries: {in_percent(calibration.relative)} %)" if len(calibration.share) else ""
    found = (
        f"layer {name}: from the index; {in_percent(share)} % of the query's direction is in its span, so a step's "
        f"gamma is off by about {in_percent(error)} % of a usual one{held}"
    )
    if not calibration.outside(share):
        return found
    lowest = in_percent(calibration.lowest)
    return f"{found}; OUT OF SPAN: all held-out queries have at least {lowest} %, so explain it without --preview"


def _ends(source: UpdateSource, layer: Layer) -> dict[str, Doubles]:
    """Return the exact contribution of the initial weights, and the norm of z."""
    target, directions = layer.target, layer.directions
    device = directions.inputs.device
    bias = source.initial_bias(target.layer)
    found = target.contributions(
        directions.inputs,
        as_float(source.initial(target.layer), device)[None],
        None if bias is None else as_float(bias, device)[None],
    )
    return {
        "init": found.gamma[:, 0].double().cpu().numpy(),
        "preactivation": found.preactivation_norm.double().cpu().numpy(),
    }


def preview_now(
    store: Store, training: Recorded, asked: Tracing, request: Request, stages: tuple[StageSpec, StageSpec | None]
) -> Explanation:
    """Return an approximate explanation of a sample or an image, with a note on each layer.

    Parameters
    ----------
    asked, request : as in `explain_now`; a request without units
    stages : specs of a finished index, and of an aggregate, which need not be finished
    """
    index, aggregate = stages
    known = open_finished(store, index).summary["layers"]
    if request.layer is not None and request.layer not in known:
        raise ConfigError(f"--layer: expected one of {', '.join(known)}, found {request.layer!r}")
    summed = None if aggregate is None else find_finished(store, aggregate.path)
    make = IndexedProjection(store, index, summed)
    settings = asked.model_copy(update={"split": "equal", "scores": ("gamma",), "units": ()})
    found = explain_now(store, training, settings, request, make)
    found = replace(found, title=f"{found.title}, preview", notes={**found.notes, **make.notes})
    if summed is None or asked.window is not None or _decays(found.parts):
        return found
    return replace(found, classes=_classes(store, training.spec, found.classes, summed, make.shares))


def _decays(parts: pd.DataFrame) -> bool:
    """Return whether weight decay has a part of its own, which the aggregate does not have."""
    return bool((parts["decay"] != 0).any())


def _classes(
    store: Store, training: StageSpec, table: pd.DataFrame, aggregate: FinishedStage, shares: dict[str, Doubles]
) -> pd.DataFrame:
    """Return the contributions of classes, or of groups of them, from exact sums."""
    names = open_finished(store, training.inputs["data"]).summary["class_names"]
    groups = [", ".join(class_name(names, label) for label in group) for group in aggregate.summary["groups"]]
    tables = []
    for layer, rows in table.groupby("layer", sort=False):
        if str(layer) not in shares:
            tables.append(rows)
            continue
        sums = shares[str(layer)][: len(groups)]
        whole = rows["sum"].abs().max() / rows["share"].abs().max() if rows["share"].abs().max() else np.nan
        made = pd.DataFrame({"layer": layer, "class_name": groups, "sum": sums, "share": sums / whole})
        tables.append(made.sort_values("sum", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)
