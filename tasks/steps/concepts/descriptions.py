"""The descriptions stage: the captions of a layer's neurons as words of the space of words.

The category of a description is that of the nearest word of the word list in this space.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.concepts.captioner import given_file
from tasks.steps.concepts.milan import BEST, count_neurons, read_captions
from tasks.steps.concepts.text_side import TextSide, check_vocabulary, encode_descriptions
from tasks.steps.concepts.words import FILE, TEXT_BYTES, open_words

VERSION = 1


def descriptions_spec(detected: StageSpec, words: StageSpec, text: TextSide) -> StageSpec:
    """Return the spec of the captions that a `milan` stage found, as words."""
    inputs = {"detected": detected, "words": words, "data": words.inputs["data"], **text.inputs}
    place = {"text": text.place, "section": text.section}
    return DESCRIPTIONS.spec(
        {"text": text.parameters}, inputs, digests=text.digests, place=place, label=f"{detected.label} {text.name}"
    )


def count_descriptions(spec: StageSpec, survey: Survey) -> int:
    """Return the number of descriptions of a planned stage at most."""
    return BEST * count_neurons(spec.inputs["detected"], survey)


def _layout(store: Store, spec: StageSpec) -> Layout:
    n = len(read_captions(store, spec.inputs["detected"]).texts)
    width = open_words(store, spec.inputs["words"]).text.shape[1]
    return Layout(1, {"text": ArrayLayout((n, width), "float32", ("word", "dimension"), n, n)})


def _partition(work: Work, number: int) -> None:
    """Encode the captions."""
    stage, spec = work.stage, work.stage.spec
    texts = read_captions(stage.store, spec.inputs["detected"]).texts
    known = open_words(stage.store, spec.inputs["words"])
    vectors = encode_descriptions(stage.store, spec, texts)
    nearest = (vectors @ known.text.T).argmax(axis=1)
    categories = np.array(known.categories, object)[nearest]
    table = pd.DataFrame({"word": texts, "category": categories, "categories": [[str(name)] for name in categories]})
    with stage.partition(number) as part:
        part.write("text", np.ascontiguousarray(vectors, np.float32))
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(words=len(table)))


def _summary(stage: Stage) -> dict[str, Json]:
    return {"words": stage.layout.arrays["text"].shape[0]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    n, captioner = count_descriptions(spec, survey), spec.inputs["detected"].inputs["captioner"]
    if "file" in captioner.place:
        check_vocabulary(spec, given_file(captioner).words)
    return Size(n * (4 * 512 + 128), TEXT_BYTES + 8 * n * 1024)


DESCRIPTIONS = Step("descriptions", VERSION, _layout, _partition, _size, summary=_summary)
