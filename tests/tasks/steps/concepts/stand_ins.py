"""Finished stages with given content, in place of those that need an image-text model."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from storage.layouts import ArrayLayout, Layout
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.life import Job, complete
from tasks.engine.step import Size, Step, Work
from tasks.steps.concepts.neurons import NEURONS_FILE
from tasks.steps.concepts.words import FILE

Values = NDArray[Any]  # Any: any type


def given(
    job: Job,
    kind: str,
    arrays: Mapping[str, Values],
    files: Mapping[str, bytes],
    *,
    parameters: Mapping[str, Any] | None = None,
    inputs: Mapping[str, StageSpec] | None = None,
    place: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> StageSpec:
    """Make a stage of one partition with the given arrays and files, and return its spec."""

    def layout(store: Store, spec: StageSpec) -> Layout:
        axes = {name: tuple(f"{name} {axis}" for axis in range(array.ndim)) for name, array in arrays.items()}
        return Layout(1, {n: ArrayLayout(a.shape, str(a.dtype), axes[n], len(a), len(a)) for n, a in arrays.items()})

    def partition(work: Work, number: int) -> None:
        with work.stage.partition(number) as part:
            for name, array in arrays.items():
                part.write(name, array)
            for name, data in files.items():
                part.write_file(name, data)

    step = Step(kind, 1, layout, partition, lambda *_: Size(0, 0), summary=lambda _: dict(summary or {}))
    spec = step.spec(parameters or {}, inputs or {}, place=dict(place or {}), label=kind)
    complete(job, step, [spec])
    return spec


def words_stage(job: Job, words: Sequence[str], text: Values, manifest: StageSpec, listed: Any = "labels") -> StageSpec:
    """Make a word list with vectors."""
    table = pd.DataFrame({"word": list(words), "category": "other", "categories": [["other"]] * len(words)})
    more = {"inputs": {"data": manifest}, "place": {"words": listed}, "summary": {"words": len(words)}}
    return given(job, "words", {"text": text}, {FILE: table_bytes(table)}, parameters={"words": list(words)}, **more)


def neurons_stage(
    job: Job, responses: StageSpec, layer: str, best: pd.DataFrame, embedding: Values, number: int = 0
) -> StageSpec:
    """Make a `neurons` stage of a layer: `best` has neuron, word, similarity, interpretable and dead."""
    detected = StageSpec("clip-dissect", 1, {"layer": layer, "number": number}, {"responses": responses})
    second = best.assign(rank=1, word=0, similarity=-1.0)
    table = pd.concat([best.assign(rank=0), second], ignore_index=True).sort_values(["neuron", "rank"])
    files = {NEURONS_FILE: table_bytes(table)}
    return given(job, "neurons", {"embedding": embedding}, files, inputs={"detected": detected})
