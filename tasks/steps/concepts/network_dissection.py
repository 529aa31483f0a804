"""The network-dissection stage: how well the map of each unit fits each label of the probing set (Bau et al. 2017).

Pixel counts of units and labels are integers. Ranges of images are counted on their own and added when read. The
null counts the label maps of other images, exchanged at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.annotations import Vocabulary
from tasks.io.words import WordList
from tasks.steps.common.networks import choose_device
from tasks.steps.concepts.annotations import (
    KEY,
    LABELS_FILE,
    LabelMaps,
    annotated,
    check_label_maps,
    label_table,
    read_labels,
)
from tasks.steps.concepts.detector import Detected, Detector, Probed
from tasks.steps.concepts.layer_maps import (
    CHUNK_IMAGES,
    check_maps,
    chunk_bytes,
    image_range,
    layer_maps,
    n_ranges,
    planned_ranges,
    read_sizes,
)
from tasks.steps.concepts.thresholds import (
    THRESHOLDS,
    open_thresholds,
    recomputed_bytes,
    recomputed_line,
    thresholds_spec,
)

if TYPE_CHECKING:
    from tasks.detectors.dissection import Dissection

VERSION = 1
NAME = "network-dissection"
DEFAULTS: Document = {"quantile": 0.005, "category_restriction": "image", "maps": "stored"}
SOURCES = ("stored", "recomputed")  # of maps
TRUE, NULL = "true", "null"  # with the images' own label maps, and with exchanged ones


def dissection_settings(parameters: Mapping[str, Json]) -> Document:
    """Return the parameters of Network Dissection with their defaults.

    `quantile` is the share of a unit's activations above its threshold. `category_restriction` says which pixels of a
    unit count for a category: "image", "region" or "none". `maps` are "stored" or "recomputed".

    Raises
    ------
    ValueError : an unknown parameter; names the config's key. Sizes of stages check the values
    """
    for name in parameters:
        if name not in DEFAULTS:
            raise ValueError(f"{KEY}.{name}: unknown parameter; known: {', '.join(DEFAULTS)}, temperature, tau")
    return {**DEFAULTS, **parameters}


def check_choices(settings: Mapping[str, Json]) -> None:
    """Raise ValueError for a `category_restriction` or `maps` that cannot be; names the config's key."""
    from tasks.detectors.dissection import RESTRICTIONS

    for name, known in (("category_restriction", RESTRICTIONS), ("maps", SOURCES)):
        if name in settings and settings[name] not in known:
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ValueError(f"{KEY}.{name}: expected {expected}, found {settings[name]!r}")


def read_dissection(store: Store, spec: StageSpec, of: str = TRUE) -> Dissection:
    """Return the counts of a finished stage over all images; with `NULL`, those of exchanged label maps."""
    from tasks.detectors.tallies import Tallies

    finished = open_finished(store, spec)
    names = ("intersection", "label_area", "unit_area")
    counts = {name: _sum(finished, f"{of}.{name}") for name in names}
    counts["mask_size"] = finished.read(f"{of}.mask_size", 0, 1)[0]
    labels, threshold = read_labels(finished).category_of, finished.read("threshold", 0, 1)[0]
    return Tallies.of(counts, labels, threshold, str(spec.parameters["category_restriction"])).result()


def read_vocabulary(store: Store, spec: StageSpec) -> Vocabulary:
    """Return the labels of a finished stage."""
    return read_labels(open_finished(store, spec))


def word_similarity(iou: NDArray[np.float64], vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Return the IoU of units and words, (K, S), from that of label numbers, (K, L): the largest of a word's labels.

    The words are those of the probing set's own word list.
    """
    words = WordList.of_vocabulary(vocabulary)
    at = words.label_positions(vocabulary)
    similarity = np.zeros((len(words.words), len(iou)))
    np.maximum.at(similarity, at[at >= 0], iou.T[at >= 0])
    return np.ascontiguousarray(similarity.T, np.float32)


def _sum(finished: FinishedStage, name: str) -> NDArray[np.int64]:
    """Return an array of counts, added over the ranges of images."""
    total: NDArray[np.int64] = finished.read(name, 0, 1)[0].astype(np.int64)
    for number in range(1, finished.layout.partitions):
        total += finished.read(name, number, number + 1)[0]
    return total


def _plan(responses: StageSpec, probed: Probed, layer: str, parameters: Mapping[str, Json], seed: int) -> StageSpec:
    """Return the spec of the counts of a layer; whether maps are stored does not change them."""
    settings = dissection_settings(parameters)
    kept = {"layer": layer, "seed": seed, "category_restriction": settings["category_restriction"]}
    inputs = {"responses": responses, "thresholds": thresholds_spec(responses, layer, settings["quantile"])}
    place, label = {"maps": settings["maps"]}, f"{responses.label} {NAME}"
    return NETWORK_DISSECTION.spec(kept, inputs, place=place, label=label)


def _read(store: Store, spec: StageSpec) -> Detected:
    """Return what a finished stage found."""
    vocabulary, dead = read_vocabulary(store, spec), open_finished(store, spec).read("dead", 0, 1)[0]
    found, null = (
        np.where(dead[:, None], np.float32(0), word_similarity(read_dissection(store, spec, of).iou, vocabulary))
        for of in (TRUE, NULL)
    )
    return Detected(found, null.max(axis=1), dead)


def _layout(store: Store, spec: StageSpec) -> Layout:
    responses = spec.inputs["responses"]
    neurons, _, _ = read_sizes(open_finished(store, responses), spec.parameters["layer"])
    return _planned(neurons, annotated(responses.inputs["data"]).vocabulary(), n_ranges(store, responses))


def _planned(neurons: int, vocabulary: Vocabulary, ranges: int) -> Layout:
    """Return the layout of the counts by range of images, and of the thresholds, which all ranges share."""
    labels, categories = len(vocabulary.names), int(vocabulary.category_of.max()) + 1

    def array(dtype: str, shape: tuple[int, ...], *axes: str) -> ArrayLayout:
        return ArrayLayout((ranges, *shape), dtype, ("range", *axes), 1, 1)

    arrays = {"threshold": array("float64", (neurons,), "neuron"), "dead": array("bool", (neurons,), "neuron")}
    for of in (TRUE, NULL):
        arrays |= {
            f"{of}.intersection": array("int64", (neurons, labels), "neuron", "label"),
            f"{of}.label_area": array("int64", (labels,), "label"),
            f"{of}.unit_area": array("int64", (neurons, categories), "neuron", "category"),
            f"{of}.mask_size": array("int64", (2,), "axis"),
        }
    return Layout(ranges, arrays)


def _partition(work: Work, number: int) -> None:
    """Count the pixels of units and labels on a range of images."""
    from tasks.concepts.nulls import shuffled_images

    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    responses, layer = spec.inputs["responses"], str(spec.parameters["layer"])
    masks = LabelMaps(store, responses.inputs["data"], responses.parameters["split"])
    value, dead = open_thresholds(store, spec.inputs["thresholds"])
    exchanged = shuffled_images(len(masks), int(spec.parameters["seed"]))
    with stage.partition(number) as part:
        span = image_range(store, responses, number)
        maps = layer_maps(store, responses, layer, span, choose_device(work.device))
        found = count_pixels(maps, masks, exchanged, value, str(spec.parameters["category_restriction"]))
        counts = {f"{of}.{name}": array for of, arrays in found.items() for name, array in arrays.items()}
        for name, array in {"threshold": value, "dead": dead, **counts}.items():
            part.write(name, np.ascontiguousarray(array[None]))
        if number == 0:
            part.write_file(LABELS_FILE, label_table(masks.source.vocabulary()))
        part.numbers.update(measured(samples=span[1] - span[0]))


def count_pixels(
    maps: Iterable[tuple[int, NDArray[np.floating]]],
    masks: LabelMaps,
    exchanged: NDArray[np.int64],
    threshold: NDArray[np.float64],
    restriction: str,
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Count the pixels of units and labels, with the images' own label maps and with exchanged ones.

    Parameters
    ----------
    maps : (position of the first image, maps (n, K, h, w)), a chunk at a time
    masks : the label maps of all images
    exchanged : (N,) position of the image whose label maps each image gets in the null
    threshold : (K,)
    restriction : which pixels of a unit count for a category

    Returns
    -------
    the arrays of the tallies `TRUE` and `NULL`
    """
    from tasks.detectors.tallies import Tallies

    labels = masks.source.vocabulary().category_of
    found, null = (Tallies(labels, threshold, restriction) for _ in range(2))
    for start, chunk in maps:
        values, at = chunk.astype(np.float32), np.arange(start, start + len(chunk))
        found.update(values, masks.read(at))
        null.update(values, masks.read(exchanged[at]))
    return {TRUE: found.arrays(), NULL: null.arrays()}


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the numbers of units and of label numbers."""
    _, neurons, labels = stage.layout.arrays[f"{TRUE}.intersection"].shape
    return {"neurons": neurons, "labels": labels}


def _size(spec: StageSpec, survey: Survey) -> Size:
    responses, layer = spec.inputs["responses"], str(spec.parameters["layer"])
    check_choices({**spec.parameters, **spec.place})
    sizes = neurons, height, _ = check_maps(responses, layer, survey, KEY)
    vocabulary, shape = check_label_maps(responses, survey)
    ranges = planned_ranges(responses, survey)
    written = _planned(neurons, vocabulary, ranges).n_bytes
    planes, rows, columns = shape
    masks = CHUNK_IMAGES * 3 * 4 * planes * rows * columns
    image = (neurons + len(vocabulary.names)) * rows * columns // 2 + 4 * 8 * neurons * height * columns
    peak = 4 * written // ranges + chunk_bytes(sizes) + masks + image + recomputed_bytes(responses, layer, survey)
    return Size(written, peak, "; ".join(_lines(spec, responses)))


def _lines(spec: StageSpec, responses: StageSpec) -> Iterator[str]:
    """Yield what a user should know before the run."""
    from tasks.detectors.dissection import passing_cover

    if line := recomputed_line(responses):
        yield line
    from tasks.detectors.defaults import default_tau

    quantile, tau = float(spec.inputs["thresholds"].parameters["quantile"]), default_tau(NAME, 1, 1)
    if (cover := passing_cover(quantile, tau)) < 1:
        yield f"a label on more than {cover:.1%} of the pixels cannot reach IoU {tau:g} at quantile {quantile:g}"


NETWORK_DISSECTION = Step(NAME, VERSION, _layout, _partition, _size, summary=_summary, network=True)
NETWORK_DISSECTION_DETECTOR = Detector((THRESHOLDS, NETWORK_DISSECTION), _plan, _read, "label maps")
