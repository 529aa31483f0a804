"""The units stage: the units of each class by the mu-lasso, with the whole path over mu (VEBI)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.results import table_bytes
from storage.specs import StageSpec, signature_defaults, without_defaults
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters.ice import top_heat_maps
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.interpretation.method import Expressed, Maps
from tasks.steps.interpretation.responses import call_of_unit, responses_spec, units_of
from tasks.steps.interpretation.selection import count_classes, kept_positions
from tasks.steps.interpretation.unit_gram import read_system, unit_gram_spec

VERSION = 1
METHOD = "vebi"  # in a config
KINDS = ("energy", "l2", "mean")
BEST_MAPS = 3  # units of an image that its heat map shows
FEW_UNITS = 2  # mean number of units below which distances are trivially small
MOST_CLASSES = 16  # classes of a partition


def check(*, mu: float = 10.0, response: str = "energy") -> None:
    """Check the parameters of units of all layers that predict a class; raise an error that names a bad one.

    Parameters
    ----------
    mu : bound of the sum of a class's weights, > 0
    response : energy, l2 or mean
    """
    if isinstance(mu, bool) or not isinstance(mu, int | float) or not np.isfinite(mu) or mu <= 0:
        raise ValueError(f"mu: expected a finite number above 0, found {mu!r}")
    if response not in KINDS:
        raise ValueError(f"response: expected {', '.join(KINDS)}, found {response!r}")


DEFAULTS = signature_defaults(check)


def units_spec(activations: StageSpec, selection: StageSpec, parameters: Mapping[str, Json], seed: int) -> StageSpec:
    """Return the spec of the units that a coreset shows; the seed plays no part, since nothing is drawn."""
    responses = responses_spec(activations, str(parameters.get("response", DEFAULTS["response"])))
    own = without_defaults({k: v for k, v in parameters.items() if k != "response"}, DEFAULTS)
    inputs = {"activations": activations, "gram": unit_gram_spec(responses, selection)}
    return UNITS.spec({"interpreter": METHOD, **own}, inputs, label=f"{METHOD} on {selection.label}")


def grown_units_spec(units: StageSpec, smaller: StageSpec) -> StageSpec:
    """Return the same units with sums that grow from those of the units of the next smaller budget."""
    gram = units.inputs["gram"]
    grown = unit_gram_spec(gram.inputs["responses"], gram.inputs["selection"], smaller.inputs["gram"])
    return replace(units, inputs={**units.inputs, "gram": grown})


@dataclass(frozen=True)
class ClassUnits:
    """The units of one class.

    Attributes
    ----------
    weights : (M,) float64 >= 0, over all ReLU calls up to the layer
    calls : (M,) int64, the ReLU call of each unit
    """

    weights: NDArray[np.float64]
    calls: NDArray[np.int64]

    def of_call(self, call: int) -> NDArray[np.int64]:
        """Return the channels of a ReLU call with a weight, by falling weight, ties by lower channel."""
        weights = self.weights[self.calls == call]
        chosen = np.argsort(-weights, kind="stable")
        found: NDArray[np.int64] = chosen[weights[chosen] > 0]
        return found

    def by_call(self) -> dict[int, list[int]]:
        """Return the channels of each ReLU call that has a unit."""
        calls = np.unique(self.calls[self.weights > 0]).tolist()
        return {int(call): self.of_call(call).tolist() for call in calls}

    def express(self, maps: Maps) -> Expressed:
        """Return the units of the layer itself among its maps (n, h, w, d); zeros where it has none."""
        chosen = np.sort(self._own(maps.shape[-1]))
        rebuilt = np.zeros_like(maps)
        rebuilt[..., chosen] = maps[..., chosen]
        columns = np.zeros((maps[..., 0].size, max(1, len(chosen))))
        columns[:, : len(chosen)] = maps[..., chosen].reshape(len(columns), len(chosen))
        return Expressed(columns, rebuilt)

    def heat_maps(self, maps: Maps, size: tuple[int, int]) -> Maps:
        """Return where the units of the layer itself respond most, (n, H, W) in [0, 1]; zeros where it has none."""
        chosen = self._own(maps.shape[-1])
        if not len(chosen):
            return np.zeros((len(maps), *size), np.float32)
        return np.stack([top_heat_maps(one[..., chosen], BEST_MAPS, size) for one in maps])

    def _own(self, channels: int) -> NDArray[np.int64]:
        """Return the units of the layer itself: of the last ReLU call, if that has the layer's channels."""
        last = int(self.calls[-1])
        return self.of_call(last) if np.count_nonzero(self.calls == last) == channels else np.zeros(0, np.int64)


def read_units(store: Store, spec: StageSpec) -> Callable[[int], ClassUnits]:
    """Open finished units; the result gives the units of the class with an index."""
    stage = open_finished(store, spec)
    calls = call_of_unit(stage.summary["layers"])
    return lambda index: ClassUnits(np.asarray(stage.read("weights", index, index + 1)[0], np.float64), calls)


def unit_numbers(store: Store, spec: StageSpec) -> Callable[[int], NDArray[np.int64]]:
    """Open finished units; the result gives the numbers of the units of the class with an index."""
    read = read_units(store, spec)
    return lambda index: np.flatnonzero(read(index).weights > 0)


def _layout(store: Store, spec: StageSpec) -> Layout:
    units, n_classes = open_finished(store, spec.inputs["gram"]).layout.arrays["moment"].shape
    rows = min(n_classes, MOST_CLASSES)
    weights = ArrayLayout((n_classes, units), "float64", ("class", "unit"), rows, rows)
    return Layout(weights.partitions, {"weights": weights})


def _partition(work: Work, number: int) -> None:
    """Follow the path of a few classes; each class's path is a file."""
    from tasks.interpreters.mu_path import mu_path

    stage, spec = work.stage, work.stage.spec
    mu, gram_spec = float(spec.parameters.get("mu", DEFAULTS["mu"])), spec.inputs["gram"]
    finished = open_finished(stage.store, gram_spec)
    gram, moment = read_system(finished)
    kept = kept_positions(open_finished(stage.store, gram_spec.inputs["selection"]))
    labels = list(ranges_by_class(open_finished(stage.store, spec.inputs["activations"])))
    with stage.partition(number) as part:
        first, last = part.span
        weights, logged, paths = np.zeros((last - first, len(gram))), {}, []
        for index in range(first, last):
            started, total = time.perf_counter(), float(finished.summary["predicted"][index])
            path = mu_path(gram, moment[:, index], until=mu)
            found = weights[index - first] = path.at(mu)
            squared = total - 2 * float(found @ moment[:, index]) + float(found @ gram @ found)
            point, column = np.nonzero(path.weights)
            paths.append(
                pd.DataFrame(
                    {
                        "label": labels[index],
                        "mu": path.mu[point],
                        "penalty": path.penalty[point],
                        "unit": path.units[column],
                        "weight": path.weights[point, column],
                    }
                )
            )
            logged[str(labels[index])] = {
                "kept": len(kept[index]),
                "relative_error": (max(0.0, squared) / total) ** 0.5 if total else 0.0,
                "seconds": time.perf_counter() - started,
                "units": int(np.count_nonzero(found)),
                "predicted": int(total),
            }
        part.write("weights", weights)
        part.write_file(f"paths-{number:06d}.parquet", table_bytes(pd.concat(paths, ignore_index=True)))
        part.numbers.update(measured(classes=logged))


def _summary(stage: Stage) -> Document:
    """Return the classes' metrics, the units of each ReLU call, whether classes have few units on average, and costs.

    `seconds` are those of the fit, of the sums over the samples that are new at this budget, and of all sums that the
    fit rests on.
    """
    markers = [stage.marker(number) for number in range(stage.layout.partitions)]
    classes = {k: v for marker in markers if marker is not None for k, v in marker["numbers"]["classes"].items()}
    gram = open_finished(stage.store, stage.spec.inputs["gram"])
    responses = open_finished(stage.store, stage.spec.inputs["gram"].inputs["responses"])
    fit = sum(found["seconds"] for found in classes.values())
    mean = float(np.mean([found["units"] for found in classes.values()]))
    unseen = sum(found["predicted"] == 0 for found in classes.values())
    return {
        "classes": classes,
        "layers": responses.summary["layers"],
        "units_mean": mean,
        "few_units": mean < FEW_UNITS,
        "never_predicted": unseen,
        "seconds": {"fit": fit, "shell": gram.summary["seconds"], "chain": gram.summary["seconds_chain"]},
    }


def n_columns(spec: StageSpec, channels: int) -> int:
    """Return the most columns of a class's units of the layer itself."""
    return channels


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: the whole Gram matrix is in memory, since a path may need any of its columns."""
    activations = spec.inputs["activations"]
    n_classes, _ = count_classes(activations, survey)
    units = sum(units_of(activations, survey))
    return Size(8 * n_classes * units, 8 * units * (3 * units + 2 * n_classes))


UNITS = Step("units", VERSION, _layout, _partition, _size, summary=_summary)
