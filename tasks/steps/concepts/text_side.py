"""The image-text model and the text encoder of question 3: their identity in a stage, and the open models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.captioner import DrawnCaptions
from configs.companions import Diversity
from configs.concepts import Concepts, OpenClip, Tiny
from storage.documents import Document, Json, canonical
from storage.specs import StageSpec
from storage.stores import Store
from tasks.io.annotations import annotations_of
from tasks.io.digests import file_sha256
from tasks.io.feature_files import FeatureFile, read_features
from tasks.io.model_files import minilm_folder, open_clip_digests
from tasks.io.samples import Picture, Vector
from tasks.io.sources import open_source
from tasks.io.words import label_words
from tasks.steps.common.manifest import data_of
from tasks.steps.concepts.dual_encoder import dual_encoder_spec, open_dual_encoder

if TYPE_CHECKING:
    from tasks.io.image_text import ImageText
    from tasks.io.text_encoder import MiniLM

MINILM = "minilm"
CONCEPTS = "concepts"  # section of question 3
MODEL_BYTES = 1024 * 2**20  # memory of an image-text model with a batch


@dataclass(frozen=True)
class TextSide:
    """A model that gives vectors of words, and of images unless it is a text encoder.

    Attributes
    ----------
    name : for people
    parameters, digests, inputs : its identity in a stage's key
    place : its settings with paths
    section : key of its settings' section in the config
    """

    name: str
    parameters: Document
    place: Document
    digests: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, StageSpec] = field(default_factory=dict)
    section: str = CONCEPTS


def text_side(asked: Concepts) -> TextSide:
    """Return the model whose vectors of words are the space of words.

    Raises
    ------
    ValueError : its file cannot be read, or its package is missing; names the config's key
    """
    if asked.text == "own":
        return image_side(asked)
    try:
        minilm_folder()
    except ValueError as error:
        raise ValueError(f"concepts.text: {error}") from error
    return TextSide("all-MiniLM-L6-v2", {"kind": MINILM}, {"kind": MINILM, "name": "all-MiniLM-L6-v2"})


def image_side(asked: Concepts | Diversity, section: str = CONCEPTS) -> TextSide:
    """Return the image-text model of a section with this key.

    Raises
    ------
    ValueError : its file cannot be read; names the config's key
    """
    model = asked.image_text
    settings = model.model_dump(mode="json", exclude={"path"})
    if isinstance(model, Tiny):
        encoder = dual_encoder_spec(model)
        named = {"kind": "tiny", "name": "tiny dual encoder"}
        return TextSide("tiny dual encoder", {"kind": "tiny"}, named, inputs={"encoder": encoder}, section=section)
    name = f"open_clip {model.model}".strip() if isinstance(model, OpenClip) else "features from a file"
    try:
        if isinstance(model, OpenClip):
            files = open_clip_digests(model.path, model.model)
        else:
            files = {"features": file_sha256(model.path)}
    except ValueError as error:
        raise ValueError(f"{section}.image_text.path: {error}") from error
    digests = {f"image_text.{file}": digest for file, digest in files.items()}
    return TextSide(name, settings, {**settings, "path": model.path, "name": name}, digests, section=section)


def encode_texts(store: Store, spec: StageSpec, words: Sequence[str]) -> NDArray[np.float32]:
    """Return the vectors (S, e) of words by the model of a stage: `place.text` has its settings.

    Raises
    ------
    ValueError : words that the model does not know
    """
    settings = spec.place["text"]
    if settings["kind"] == MINILM:
        return _minilm().encode_texts(list(words))
    if settings["kind"] == "features":
        return _features(spec, settings).texts(words)
    return _model(store, spec, settings).encode_texts(list(words))


def check_describes(asked: Concepts) -> None:
    """Raise ValueError unless the text encoder of question 3 reads whole captions; names the config's key."""
    if asked.text != "own" or isinstance(asked.image_text, OpenClip):
        return
    assert asked.captioner is not None
    if isinstance(asked.image_text, Tiny) and isinstance(asked.captioner.captions, DrawnCaptions):
        return  # a captioner of a file may have the words of drawn captions; the size of its descriptions checks it
    raise ValueError(
        f"{CONCEPTS}.text: expected a text encoder that reads the captions of detector milan, found one of single "
        f"words, {asked.image_text.kind!r}; set it to minilm"
    )


def check_vocabulary(spec: StageSpec, words: Sequence[str]) -> None:
    """Raise ValueError where the text encoder of a stage is a table of words with none of a captioner's words."""
    if spec.place["text"]["kind"] == "tiny":
        from tasks.io.dual_encoder import mini_broden_words

        if not (mini_broden_words().positions(words) >= 0).any():
            raise ValueError(
                f"{CONCEPTS}.text: expected a text encoder that reads the words of `{CONCEPTS}.captioner.weights`, "
                "found the tiny dual encoder without any of them; set it to minilm"
            )


def encode_descriptions(store: Store, spec: StageSpec, captions: Sequence[str]) -> NDArray[np.float32]:
    """Return the vectors (S, e) of captions by the model of a stage: `place.text` has its settings.

    The tiny dual encoder has a table of words alone. There a caption is the unit mean of its words, 0 without any.
    """
    if spec.place["text"]["kind"] != "tiny":
        return encode_texts(store, spec, captions)
    from tasks.io.dual_encoder import mini_broden_words

    known = mini_broden_words()
    table = encode_texts(store, spec, known.words)
    found = np.zeros((len(captions), table.shape[1]), np.float32)
    for row, caption in zip(found, captions, strict=True):
        at = known.positions(caption.split())
        row += table[at[at >= 0]].sum(axis=0)
        row /= float(np.linalg.norm(row)) or 1.0
    return found


def check_texts(spec: StageSpec, words: Sequence[str]) -> None:
    """Raise ValueError for words that the model of a stage does not know: `place.text` has its settings."""
    kind = spec.place["text"]["kind"]
    if kind == "features":
        _features(spec, spec.place["text"]).texts(words)
    elif kind == "tiny":
        from tasks.io.dual_encoder import word_positions

        word_positions(words)


def encode_images(
    store: Store, spec: StageSpec, images: Sequence[Picture | Vector], ids: NDArray[np.int64], keys: Sequence[str]
) -> NDArray[np.float32]:
    """Return the vectors (n, e) of decoded images by the model of a stage: `place.image_text` has its settings.

    Raises
    ------
    ValueError : an image of an unknown kind, or samples without features; names the config's key
    """
    from tasks.io.images import rgb_array

    settings = spec.place["image_text"]
    try:
        if settings["kind"] == "features":
            return _features(spec, settings).images(ids)
        model, pixels = _model(store, spec, settings), [rgb_array(*pair) for pair in zip(images, keys, strict=True)]
        if len({image.shape for image in pixels}) == 1:
            return model.encode_images(np.stack(pixels))
        return np.concatenate([model.encode_images(image[None]) for image in pixels])
    except ValueError as error:
        raise ValueError(f"{section_of(spec)}.image_text: {error}") from error


def vector_width(store: Store, spec: StageSpec) -> int:
    """Return e, the length of the vectors of a stage's image-text model."""
    settings = spec.place["image_text"]
    if settings["kind"] == "features":
        return int(_features(spec, settings).image_rows.shape[1])
    return int(_model(store, spec, settings).encode_images(np.zeros((1, 64, 64, 3), np.uint8)).shape[1])


def check_model(spec: StageSpec, n_samples: int) -> None:
    """Check the file of a stage's image-text model before the run.

    Parameters
    ----------
    n_samples : of the whole data set, which have the ids 0, 1, ...

    Raises
    ------
    ValueError : a file that cannot be read, or features of other samples; names the config's key
    """
    settings = spec.place["image_text"]
    try:
        if settings["kind"] == "features":
            features = _features(spec, settings)
            features.check_samples(n_samples)
            if spec.parameters["split"] is None:  # the ids of a split are known only from the manifest
                features.images(np.arange(n_samples))
        elif settings["kind"] == "open-clip":
            _open_clip(settings["model"], settings["path"], canonical(dict(spec.digests)))
    except ValueError as error:
        raise ValueError(f"{section_of(spec)}.image_text: {error}") from error


def section_of(spec: StageSpec) -> str:
    """Return the key of the config's section that a stage with an image-text model belongs to."""
    return str(spec.place.get("section", CONCEPTS))


def _features(spec: StageSpec, settings: Mapping[str, Json]) -> FeatureFile:
    """Return the features of a file; rows of texts without words are the words of the probing set."""
    return _read_features(canonical(dict(settings)), spec.inputs["data"])


@lru_cache(maxsize=2)
def _read_features(settings: bytes, manifest: StageSpec) -> FeatureFile:
    """Read a file of features, which this process caches."""
    given = json.loads(settings)
    path, arrays = given["path"], {name: given[name] for name in ("images", "texts", "ids")}
    if given["words"] is not None:
        return read_features(path, **arrays, words=given["words"])
    source = open_source(data_of(manifest))
    return read_features(path, **arrays, words=label_words(annotations_of(source).vocabulary()))


def _model(store: Store, spec: StageSpec, settings: Mapping[str, Json]) -> ImageText:
    """Return an image-text model that runs here."""
    if settings["kind"] == "tiny":
        return open_dual_encoder(store, spec.inputs["encoder"])
    return _open_clip(settings["model"], settings["path"], canonical(dict(spec.digests)))


@lru_cache(maxsize=1)
def _open_clip(model: str, path: str, digests: bytes) -> ImageText:
    """Open a model of open_clip, which this process caches; the digests are a part of the cache's key."""
    from tasks.io.image_text import open_image_text

    return open_image_text("open-clip", path=path, model=model)


@lru_cache(maxsize=1)
def _minilm() -> MiniLM:
    """Open MiniLM, which this process caches."""
    from tasks.io.text_encoder import MiniLM

    return MiniLM()
