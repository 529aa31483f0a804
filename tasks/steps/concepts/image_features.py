"""The image-features stage: the vector of each probing image in the space of an image-text model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import Layout, rows_layout
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.sources import open_source
from tasks.steps.common.content import compare_content, content_of
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.concepts.text_side import MODEL_BYTES, TextSide, check_model, encode_images, vector_width

VERSION = 1
ROWS = 512
BATCH = 32  # images in one pass through the model
WIDTH = 1024  # most dimensions of common models, for the size


def image_features_spec(manifest: StageSpec, split: str | None, model: TextSide) -> StageSpec:
    """Return the spec of the vectors of all probing images."""
    place = {"image_text": model.place, "section": model.section}
    parameters = {"split": split, "image_text": model.parameters}
    inputs = {"data": manifest, **model.inputs}
    label = f"{manifest.label} {model.name}"
    return IMAGE_FEATURES.spec(parameters, inputs, digests=model.digests, place=place, label=label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    n = len(positions(store, spec.inputs["data"].path, spec.parameters["split"]))
    width = vector_width(store, spec)
    arrays = {
        "sample_id": rows_layout((n,), "int64", ("sample",), ROWS),
        "content": rows_layout((n, 16), "uint8", ("sample", "byte"), ROWS),
        "image": rows_layout((n, width), "float32", ("sample", "dimension"), ROWS),
    }
    return Layout(-(-n // ROWS), arrays)


def _partition(work: Work, number: int) -> None:
    """Encode a range of images."""
    stage, spec = work.stage, work.stage.spec
    rows = positions(stage.store, spec.inputs["data"].path, spec.parameters["split"])
    source = open_source(data_of(spec.inputs["data"]))
    with stage.partition(number) as part:
        start, stop = part.span
        chosen = rows.iloc[start:stop]
        ids, keys = chosen["id"].to_numpy(np.int64), chosen["key"].tolist()
        vectors: list[NDArray[np.float32]] = []
        content: list[NDArray[np.uint8]] = []
        for first in range(0, len(chosen), BATCH):
            samples = source.read(keys[first : first + BATCH])
            content.append(content_of(samples))
            batch = slice(first, first + len(samples))
            vectors.append(encode_images(stage.store, spec, [s.picture for s in samples], ids[batch], keys[batch]))
        compare_content(stage, spec.parameters["split"], np.concatenate(content), start, chosen)
        part.write("sample_id", ids)
        part.write("content", np.concatenate(content))
        part.write("image", np.ascontiguousarray(np.concatenate(vectors), np.float32))
        part.numbers.update(measured(samples=len(chosen)))


def _summary(stage: Stage) -> dict[str, Json]:
    return {"samples": stage.layout.arrays["image"].shape[0]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    n = survey.data(spec.inputs["data"]).count(spec.parameters["split"])
    whole = survey.data(spec.inputs["data"]).count(None)
    check_model(spec, whole)
    return Size(n * (4 * WIDTH + 24), ROWS * 4 * WIDTH + MODEL_BYTES)


IMAGE_FEATURES = Step("image-features", VERSION, _layout, _partition, _size, summary=_summary, keeps_content=True)
