"""A preview of an explanation: approximate contributions of all updates from the index, without the archive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.tracing import Tracing
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, find_finished, open_finished
from storage.stores import Store
from tasks.figures.views import in_percent
from tasks.steps.tracing.aggregate import class_gammas, example_labels
from tasks.steps.tracing.class_moves import Moves, weighed
from tasks.steps.tracing.explain import Explanation, class_name
from tasks.steps.tracing.index_basis import layers_of
from tasks.steps.tracing.index_norms import norm_calibration, rank_of, read_axes
from tasks.steps.tracing.ondemand import Followed, InMemory, NotHereError, Recorded, Request, explain_now
from tasks.steps.tracing.projection import described_targets
from tasks.steps.tracing.targets import as_float

if TYPE_CHECKING:
    from torch import nn

    from tasks.recording.sources import UpdateSource
    from tasks.steps.tracing.index_basis import Layer
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
    moves: dict[str, Moves] = field(default_factory=dict)
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
            self.moves[name] = Moves(made["gamma"][:, 0], made["norm"][:, 0], float(made["preactivation"][0]))
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
        """Return the approximate gammas and norms of a layer, and note how good they are."""
        from tasks.tracing.basis import Basis

        name, directions = layer.target.name, layer.directions
        axes = Basis(basis.read(f"basis.{name}").astype(np.float64))
        place, square = axes.coefficients(references.products(directions).T), directions.squares()
        share = float(axes.share(place, square)[0])
        gamma = stage.read(f"coefficient.{name}").astype(np.float64) @ place.T
        sizes = stage.read(f"size.{name}").astype(np.float64)
        calibration, usual_size = calibration_of(stage, basis, name), float(np.sqrt(np.mean(sizes**2)))
        error = calibration.scale(share) * float(np.sqrt(square[0])) * usual_size
        norm, seen, length = self._norms(stage, basis, layer, sizes)
        norms = norm_calibration(stage, basis, name)
        norm_error = norms.scale(seen) * length * usual_size
        self.notes[name] = "\n".join(
            [
                note(name, share, calibration, _relative(error, gamma)),
                norm_note(name, seen, norms, _relative(norm_error, norm)),
            ]
        )
        return {"gamma": gamma, "norm": norm}

    def _norms(
        self, stage: FinishedStage, basis: FinishedStage, layer: Layer, sizes: Doubles
    ) -> tuple[Doubles, float, float]:
        """Return the approximate norms (T, 1), the share of the inputs in the span, and the inputs' norm."""
        import torch

        from tasks.tracing.grams import norms_of, squares_of

        name, operation, inputs = layer.target.name, layer.directions.operation, layer.directions.inputs
        axes = read_axes(basis, name, rank_of(self.index.place))
        products, share = axes.of_queries(operation, inputs)
        grams = torch.from_numpy(stage.read(f"gram.{name}").astype(np.float32))
        found: Doubles = norms_of(grams, products.cpu(), torch.from_numpy(sizes)).numpy()
        return found, float(share[0]), float(squares_of(operation, inputs)[0].sqrt())


def _relative(error: float, values: Doubles) -> float:
    """Return an error over the usual value."""
    usual = float(np.sqrt(np.mean(values**2)))
    return error / usual if usual else 0.0


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


def norm_note(name: str, share: float, calibration: Calibration, error: float) -> str:
    """Return what is to be said of a layer's approximate norms, from which cosines follow.

    Parameters
    ----------
    share : of the layer's inputs in the span of the index's axes
    error : expected error of a step's norm over the usual norm of the query
    """
    held = f" (held-out queries: {in_percent(calibration.relative)} %)" if len(calibration.share) else ""
    found = (
        f"layer {name}, norms: {in_percent(share)} % of the query's inputs is in the span of the axes, so a step's "
        f"norm is off by about {in_percent(error)} % of a usual one{held}"
    )
    if not calibration.outside(share):
        return found
    lowest = in_percent(calibration.lowest)
    return f"{found}; OUT OF SPAN: all held-out queries have at least {lowest} %, so its cosines may be far off"


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
        raise NotHereError(f"--layer: expected one of {', '.join(known)}, found {request.layer!r}")
    summed = None if aggregate is None else find_finished(store, aggregate.path)
    make = IndexedProjection(store, index, summed)
    scores = tuple(score for score in asked.scores if score in ("gamma", "cosine"))
    settings = asked.model_copy(update={"split": "equal", "scores": scores or ("gamma",), "units": ()})
    found = explain_now(store, training, settings, request, make)
    notes = {layer: "\n".join([text, *filter(None, [found.notes.get(layer)])]) for layer, text in make.notes.items()}
    found = replace(found, title=f"{found.title}, preview", notes=notes)
    if summed is not None and asked.window is None and not _decays(found.parts):
        found = replace(found, classes=_classes(store, training.spec, found.classes, summed, make.shares))
    partitions = [[[label] for label in example_labels(store, training.spec)]]
    partitions += [] if summed is None else [summed.summary["groups"]]
    return replace(found, classes=weighed(store, training.spec, found.classes, partitions, (make.moves, asked.window)))


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
