"""The words stage: a word list with its categories, and the vector of each word in the space of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.concepts import LABELS
from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.annotations import Annotated
from tasks.io.digests import file_sha256
from tasks.io.manifest import read_class_names
from tasks.io.sources import open_source
from tasks.io.words import WordList, read_words
from tasks.steps.common.manifest import data_of
from tasks.steps.concepts.annotations import LabelMaps, label_coverage
from tasks.steps.concepts.text_side import CONCEPTS, TextSide, check_texts, encode_texts, section_of

VERSION = 1
FILE = "words.parquet"
TEXT_BYTES = 512 * 2**20  # memory of a text encoder


@dataclass(frozen=True)
class Words:
    """The words of a finished stage.

    Attributes
    ----------
    table : columns word (str), category (str, the primary one), categories (list of str); row i is word i
    text : (S, e) float32 unit rows
    """

    table: pd.DataFrame
    text: NDArray[np.float32]

    @property
    def names(self) -> list[str]:
        """The words, in order."""
        return [str(word) for word in self.table["word"]]

    @property
    def categories(self) -> list[str]:
        """The primary category of each word."""
        return [str(category) for category in self.table["category"]]


def words_spec(manifest: StageSpec, words: str | Sequence[str], text: TextSide) -> StageSpec:
    """Return the spec of a word list: `labels` of the probing set, a text file, or the words themselves.

    Raises
    ------
    ValueError : a file that cannot be read; names the config's key
    """
    digests = dict(text.digests)
    parameters: Document = {"text": text.parameters}
    if not isinstance(words, str):
        parameters["words"] = list(words)
    elif words != LABELS:
        try:
            digests["words"] = file_sha256(words)
        except ValueError as error:
            raise ValueError(f"{text.section}.words: {error}") from error
    given = words if isinstance(words, str) else list(words)
    place = {"words": given, "text": text.place, "section": text.section}
    name = words.rpartition("/")[2] if isinstance(words, str) else "anchors"
    label = f"{manifest.label} {name} {text.name}"
    return WORDS.spec(parameters, {"data": manifest, **text.inputs}, digests=digests, place=place, label=label)


def word_list(spec: StageSpec) -> WordList:
    """Return the words of a stage, from the file or the probing set.

    Raises
    ------
    ValueError : a file without words, or a probing set without names
    """
    words = spec.place["words"]
    if isinstance(words, list):
        found = WordList.of((word, ()) for word in words)
        if not found.words:
            raise ValueError("expected a word, found none; add words, or leave `anchors` out for all words")
        return found
    if words != LABELS:
        return read_words(str(words))
    data = data_of(spec.inputs["data"])
    source = open_source(data)
    if isinstance(source, Annotated):
        return WordList.of_vocabulary(source.vocabulary())
    names = read_class_names(data, source)
    if not names:
        name = spec.inputs["data"].place["name"]
        raise ValueError(
            f"data.{name}.class_names: expected names for `{section_of(spec)}.words: [labels]`, found none; give them"
        )
    return WordList.of_classes(names)


def read_word_table(finished: FinishedStage) -> Words:
    """Return the words of a finished stage."""
    table = read_table(finished.read_file(FILE), f"{finished.path}/files/{FILE}")
    return Words(table, finished.read("text").astype(np.float32, copy=False))


def open_words(store: Store, spec: StageSpec) -> Words:
    """Return the words of a stage that is complete."""
    return read_word_table(open_finished(store, spec))


def count_words(spec: StageSpec, survey: Survey) -> int:
    """Return the number of words of a stage.

    Raises
    ------
    ValueError : the words cannot be read; names the config's key
    """
    with _named(spec):
        return len(word_list(spec).words)


@contextmanager
def _named(spec: StageSpec) -> Iterator[None]:
    """Put the config's key of a stage's words before an error that does not have one."""
    try:
        yield
    except ValueError as error:
        section = section_of(spec)
        anchors = section == CONCEPTS and isinstance(spec.place["words"], list)
        key = f"{section}.{'anchors' if anchors else 'words'}"
        raise error if str(error).startswith("data.") else ValueError(f"{key}: {error}") from error


def _layout(store: Store, spec: StageSpec) -> Layout:
    words = word_list(spec).words
    with _named(spec):
        width = encode_texts(store, spec, words[:1]).shape[1]
    return Layout(
        1, {"text": ArrayLayout((len(words), width), "float32", ("word", "dimension"), len(words), len(words))}
    )


def _partition(work: Work, number: int) -> None:
    """Encode the words."""
    stage, found = work.stage, word_list(work.stage.spec)
    with _named(stage.spec):
        text = encode_texts(stage.store, stage.spec, found.words)
    table = pd.DataFrame(
        {
            "word": list(found.words),
            "category": _primary(stage.store, stage.spec, found),
            "categories": [list(categories) for categories in found.categories],
        }
    )
    with stage.partition(number) as part:
        part.write("text", np.ascontiguousarray(text, np.float32))
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(words=len(table)))


def _primary(store: Store, spec: StageSpec, words: WordList) -> list[str]:
    """Return the category of each word; of several, that in which its label covers most of the probing images."""
    from tasks.concepts.categories import primary_categories

    first = [categories[0] for categories in words.categories]
    source = open_source(data_of(spec.inputs["data"]))
    if spec.place["words"] != LABELS or max(map(len, words.categories)) == 1 or not isinstance(source, Annotated):
        return first
    vocabulary = source.vocabulary()
    at = words.label_positions(vocabulary)
    names = ["" if index < 0 else words.words[index] for index in at.tolist()]
    covered = label_coverage(LabelMaps(store, spec.inputs["data"], None)).sum(axis=0)
    primary = primary_categories(words.words, names, vocabulary.category_of, covered)
    return [vocabulary.categories[index] if index >= 0 else first[i] for i, index in enumerate(primary.tolist())]


def _summary(stage: Stage) -> dict[str, Json]:
    return {"words": stage.layout.arrays["text"].shape[0]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    n = count_words(spec, survey)
    with _named(spec):
        check_texts(spec, word_list(spec).words)
    return Size(4 * n * 512 + 64 * n, TEXT_BYTES + 8 * n * 1024)


WORDS = Step("words", VERSION, _layout, _partition, _size, summary=_summary)
