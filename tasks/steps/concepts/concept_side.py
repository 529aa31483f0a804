"""The concept-side stage: the cosine of each probing image and each word, once for all snapshots and layers.

It also keeps what similarities need of each word over all images, such as its mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.concepts.words import count_words, open_words

if TYPE_CHECKING:
    from tasks.detectors.concept_side import ConceptSide

__all__ = ["CONCEPT_SIDE", "STREAM_BYTES", "concept_side_spec", "count_words", "open_side", "scores_of"]

VERSION = 1
SIDE_BYTES = 64 * 2**20  # bytes of the cosines of a range of images
BLOCK_BYTES = 4 * 2**20  # bytes of the cosines that a similarity takes at once
STREAM_BYTES = SIDE_BYTES + 16 * BLOCK_BYTES  # memory of a similarity without its sums: float64 and temporaries
MAX_ROWS = 1024
N_MOMENTS = 8  # values of each word in the state of ConceptMoments


def concept_side_spec(images: StageSpec, words: StageSpec) -> StageSpec:
    """Return the spec of the cosines of images and words of one image-text model."""
    return CONCEPT_SIDE.spec({}, {"images": images, "words": words}, label=words.label)


def scores_of(finished: FinishedStage) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first position, cosines (n, S) float32) of all images, a few rows at a time.

    Similarities compute in float64 with several temporaries, which are small for few rows.
    """
    layout = finished.layout.arrays["cosine"]
    for number in range(layout.partitions):
        first, last = layout.span(number)
        cosines = finished.read("cosine", first, last).astype(np.float32, copy=False)
        rows = max(1, BLOCK_BYTES // (4 * layout.shape[1]))
        for start in range(0, len(cosines), rows):
            yield first + start, cosines[start : start + rows]


def open_side(finished: FinishedStage) -> ConceptSide:
    """Return what similarities need of each word over all images."""
    from tasks.detectors.concept_side import ConceptMoments

    whole = ConceptMoments()
    for number in range(finished.layout.partitions):
        start, stop = finished.layout.arrays["cosine"].span(number)
        whole.merge(ConceptMoments.of(stop - start, finished.read("moments", number, number + 1)[0]))
    return whole.side()


def _layout(store: Store, spec: StageSpec) -> Layout:
    n = int(open_finished(store, spec.inputs["images"]).summary["samples"])
    n_words = int(open_finished(store, spec.inputs["words"]).summary["words"])
    return _side_layout(n, n_words)


def _side_layout(n: int, n_words: int) -> Layout:
    """Return the layout for n images and S words: `cosine` (n, S) float32, and the moments of each partition."""
    rows = max(1, min(MAX_ROWS, SIDE_BYTES // (4 * n_words), n))
    count = -(-n // rows)
    arrays = {
        "sample_id": ArrayLayout((n,), "int64", ("sample",), rows, rows),
        "cosine": ArrayLayout((n, n_words), "float32", ("sample", "word"), rows, rows),
        "moments": ArrayLayout((count, N_MOMENTS, n_words), "float64", ("partition", "moment", "word"), 1, 1),
    }
    return Layout(count, arrays)


def _partition(work: Work, number: int) -> None:
    """Multiply a range of images with all words."""
    from tasks.detectors.concept_side import ConceptMoments

    stage, spec = work.stage, work.stage.spec
    images = open_finished(stage.store, spec.inputs["images"])
    text = open_words(stage.store, spec.inputs["words"]).text
    with stage.partition(number) as part:
        start, stop = part.span
        vectors = images.read("image", start, stop).astype(np.float32, copy=False)
        if vectors.shape[1] != text.shape[1]:
            raise ValueError(
                f"{spec.title}: expected image and text vectors of one length, found {vectors.shape[1]} and "
                f"{text.shape[1]}; take both from one model"
            )
        part.write("sample_id", images.read("sample_id", start, stop))
        cosines = np.ascontiguousarray(vectors @ text.T)
        part.write("cosine", cosines)
        part.write("moments", ConceptMoments().update(cosines).state()[None])
        part.numbers.update(measured(samples=stop - start))


def _summary(stage: Stage) -> dict[str, Json]:
    n, n_words = stage.layout.arrays["cosine"].shape
    return {"samples": n, "words": n_words}


def _size(spec: StageSpec, survey: Survey) -> Size:
    images = spec.inputs["images"]
    n = survey.data(images.inputs["data"]).count(images.parameters["split"])
    n_words = count_words(spec.inputs["words"], survey)
    return Size(_side_layout(n, n_words).n_bytes, 3 * SIDE_BYTES + 4 * n_words * 1024)


CONCEPT_SIDE = Step("concept-side", VERSION, _layout, _partition, _size, summary=_summary)
