"""An explanation without stages: one image or sample, projected on all updates of an archive in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.load import ConfigError
from configs.schema import Network
from configs.tracing import Queries, Tracing
from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network, preprocessing_of
from tasks.steps.common.replays import open_archive
from tasks.steps.common.samples import read_first, read_positions
from tasks.steps.common.subject import Watch, read_query
from tasks.steps.tracing.explain import Explanation, Influence, answered, class_name, explanation_of, keys_of
from tasks.steps.tracing.influence import described, meaning, ranked
from tasks.steps.tracing.layers import check_units, unit_of
from tasks.steps.tracing.projection import (
    check_finite,
    contribution_arrays,
    contributions_spec,
    described_targets,
    input_batches,
    project_segment,
)
from tasks.steps.tracing.queries import queries_spec, query_logits
from tasks.steps.tracing.series import Contributions
from tasks.steps.tracing.targets import layer_targets

if TYPE_CHECKING:
    from torch import Tensor, nn

    from storage.updates.archives import Segment
    from tasks.recording.sources import UpdateSource

Project = Callable[["StageSpec", "UpdateSource", "nn.Module", "Followed"], "InMemory"]


class NotHereError(ConfigError):
    """A network without a layer, or data without a sample, that is asked for; others of the run may have it."""


@dataclass(frozen=True)
class Request:
    """What is asked of an archive: one of a sample and an image, in some layers and units, or in all layers.

    Attributes
    ----------
    sample : id, or key as text
    image : path or URL of an image file
    layer : name of the only layer
    units : LAYER:INDEX; then only these are traced
    count : number of examples at either end
    """

    sample: int | str | None = None
    image: str | None = None
    layer: str | None = None
    units: tuple[str, ...] = ()
    count: int = 5


@dataclass(frozen=True)
class Recorded:
    """A finished training with an archive.

    Attributes
    ----------
    spec : of the training
    network : its section of the config
    manifest : the data set of the samples that can be asked about
    """

    spec: StageSpec
    network: Network
    manifest: StageSpec


@dataclass(frozen=True)
class InMemory:
    """Contributions in memory, in the layout of their stage."""

    layout: Layout
    summary: Document
    arrays: dict[str, NDArray[Any]]  # Any: floats

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:  # Any: floats
        """Return rows of an array."""
        return self.arrays[name][start:stop]


def explain_now(store: Store, training: Recorded, asked: Tracing, request: Request, project: Project) -> Explanation:
    """Return the explanation of a sample or an image by a recorded training.

    Parameters
    ----------
    asked : settings; those of the request replace layers, units and the number of examples
    project : makes the contributions of all updates to the query, such as `from_archive`

    Raises
    ------
    ConfigError : the sample, the image file, a layer or a unit cannot be used
    """
    from tasks.modules.naming import traced_module
    from tasks.recording.traced import holds

    spec, device = training.spec, choose_device("auto")
    source = open_archive(store, spec)
    asked = asked.model_copy(update=_traced(request))
    chosen = _sample(store, training.manifest, request)
    queries = queries_spec(str(spec.place["network"]), training.network, training.manifest, spec, chosen)
    model = load_network(store, queries, device)
    named = [unit_of(unit)[0] for unit in request.units] + ([request.layer] if request.layer else [])
    known = [*source.layers, *(layer for layer in named if holds(source, layer))]
    _check(request, {layer: traced_module(model, layer) for layer in known})
    images, said, label = _query(store, queries, request)
    logits = query_logits(model, images.to(device))[0]
    names = open_finished(store, spec.inputs["data"]).summary["class_names"]
    given = "" if label is None else f", class {class_name(names, label)}"
    followed = [int(logits.argmax()), int(logits.argmax()) if label is None or label >= len(logits) else label]
    query = Followed(images.to(device), np.array([followed]))
    _, read = influence_now(store, contributions_spec(spec.label, spec, queries, asked), asked, model, query, project)
    said = f"{said}{given}, {answered(logits, names)}"
    return explanation_of(read, 0, names, (spec.label, said))


@dataclass(frozen=True)
class Followed:
    """One query as the network takes it, (1, C, h, w), and the two classes of its logits, (1, 2)."""

    images: Tensor
    classes: NDArray[np.int64]


def influence_now(
    store: Store, spec: StageSpec, asked: Tracing, model: nn.Module, query: Followed, project: Project
) -> tuple[Contributions, Influence]:
    """Return the contributions of all updates to a query, and what an influence stage would hold but for densities.

    Parameters
    ----------
    spec : of the contributions; its queries may be any of the network
    """
    training = spec.inputs["network"]
    made = Contributions(store, spec, asked.window, project(spec, open_archive(store, training), model, query))
    return made, replace(_influence(store, made, asked), keys=keys_of(store, training.inputs["data"].path))


def from_archive(spec: StageSpec, source: UpdateSource, model: nn.Module, query: Followed, *, watch: Watch) -> InMemory:
    """Return the contributions of all updates to a query, in one pass over the archive.

    Parameters
    ----------
    watch : yields the segments of the archive while they are read, with a title for a progress bar
    """
    targets = layer_targets(spec, source, model, query.images)
    layout = Layout(len(source.segments()), contribution_arrays(spec, source, targets, 1))
    arrays = {name: np.zeros(array.shape, np.float32) for name, array in layout.arrays.items()}
    for segment in watch(source.segments(), f"reading the archive of {spec.inputs['network'].label}"):
        views = dict(_segment_views(arrays, layout, segment))
        project_segment(source, segment, targets, input_batches(model, targets, query.images, query.classes), views)
        for name, values in views.items():
            check_finite(spec, name, values, segment.start)
    return InMemory(layout, described_targets(targets), arrays)


def _check(request: Request, layers: Mapping[str, nn.Module]) -> None:
    """Raise ConfigError for a layer or a unit that the archive does not have."""
    if request.layer is not None and request.layer not in layers:
        raise NotHereError(f"--layer: expected one of {', '.join(layers)}, found {request.layer!r}")
    missing = any(unit_of(unit)[0] not in layers for unit in request.units)
    try:
        check_units(request.units, layers, "--unit")
    except ValueError as error:
        raise (NotHereError if missing else ConfigError)(str(error)) from None


def _traced(request: Request) -> dict[str, object]:
    """Return the settings that a request changes."""
    found: dict[str, object] = {"k": request.count, "units": request.units}
    if request.units or request.layer is not None:
        found["layers"] = () if request.layer is None else (request.layer,)
    return found


def _sample(store: Store, manifest: StageSpec, request: Request) -> Queries:
    """Return the choice of the sample alone, in whatever split it is; for an image, any choice."""
    if request.sample is None:
        return Queries()
    rows = positions(store, manifest.path, None)
    found = rows[rows["id" if isinstance(request.sample, int) else "key"] == request.sample]
    if found.empty:
        raise NotHereError(
            f"--sample: expected an id or key of data.{manifest.place['name']}, found {request.sample!r}; ids are "
            f"{rows['id'].min()} to {rows['id'].max()}, keys are such as {rows['key'].iloc[0]!r}"
        )
    return Queries(split=str(found["split"].iloc[0]), samples=(int(found["id"].iloc[0]),))


def _query(store: Store, queries: StageSpec, request: Request) -> tuple[Tensor, str, int | None]:
    """Return the network's input (1, C, h, w), what it is, and its given label; None for an image."""
    if request.image is not None:
        expected = read_first(store, queries.inputs["data"], preprocessing_of(queries.parameters["network"])).shape
        if len(expected) != 4:
            raise ConfigError("--image: expected a network of images, found one of graphs or sequences; use --sample")
        inputs, said = read_query(request.image, preprocessing_of(queries.parameters["network"]), tuple(expected[1:]))
        return inputs, said, None
    split, (sample,) = queries.parameters["split"], queries.parameters["samples"]
    rows = positions(store, queries.inputs["data"].path, split)
    place = np.flatnonzero(rows["id"] == sample)
    row = rows.iloc[int(place[0])]
    inputs = read_positions(store, queries, split, place.astype(np.int64)).contiguous()
    return inputs, f"sample {sample} of split {split}, key {row['key']}", int(row["label_given"])


def _segment_views(
    arrays: dict[str, NDArray[Any]],  # Any: floats
    layout: Layout,
    segment: Segment,
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the rows of a segment of each array; numbers per query belong to the first segment."""
    for name, array in layout.arrays.items():
        if array.dimensions[0] == "step":
            yield name, arrays[name][segment.start : segment.stop]
        elif segment.start == 0:
            yield name, arrays[name]


def _influence(store: Store, found: Contributions, asked: Tracing) -> Influence:
    """Return what an influence stage would hold, but for densities."""
    rankings = found.rankings([score for score in asked.scores if score != "tracin"])
    k = min(asked.k, len(found.examples))
    parts = [ranked(store, found, ranking, k) for ranking in rankings]
    layers = [described(store, found, layer) for layer in found.layers]
    arrays = {name: np.stack([part[name] for part in group]) for group in (parts, layers) for name in group[0]}
    return Influence(meaning(store, found, rankings), arrays)
