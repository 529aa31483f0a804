"""The captioner stage: a model that describes regions, trained on regions with captions or read from a file.

Regions of some origins are held out to stop the training, and of others to test it. The null of the test gives each
caption to other regions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from configs.captioner import Captioner, CaptionFiles
from configs.concepts import Concepts
from configs.schema import Config
from storage.documents import Document, Json
from storage.layouts import Layout
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.digests import file_sha256, folder_digest
from tasks.io.files import local_path
from tasks.io.regions import TABLE, RegionFiles
from tasks.steps.common.networks import choose_device
from tasks.steps.common.question import Shared
from tasks.steps.concepts.captions import (
    BATCH,
    caption_source,
    describe_captions,
    divide,
    learned_regions,
    region_features,
)
from tasks.steps.concepts.encoder import KEY, Encoder, count_features, encoder_bytes, encoder_of

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.detectors.caption_scores import CaptionScores
    from tasks.detectors.caption_words import CaptionWords
    from tasks.detectors.captioner import Captioner as Model
    from tasks.io.captioner_files import CaptionerFile

VERSION = 2  # every caption ends with its stop
STATE, WORDS, TEST, CURVES = "captioner.safetensors", "words.json", "test.parquet", "losses.parquet"
TESTED, LOSSES = ("caption", "found"), ("part", "epoch", "loss")  # columns
LONGEST_SIDE = 512  # pixels of an image with captions, for the memory of a batch


class Made(NamedTuple):
    """A captioner: its tensors and words, its captions of tested regions, the losses of each epoch, and its scores."""

    state: dict[str, Tensor]
    words: tuple[str, ...]
    tested: pd.DataFrame
    losses: pd.DataFrame
    numbers: Document


def captioner_spec(config: Config, shared: Shared, asked: Concepts, captioner: Captioner) -> StageSpec:
    """Return the spec of the captioner.

    Raises
    ------
    ValueError : a file that cannot be read; names the config's key
    """
    network, given, digests, inputs = encoder_of(config, shared, asked, captioner).identity()
    model = captioner.model_dump(mode="json", exclude={"encoder", "layers", "captions", "weights", "quantile"})
    parameters: Document = {"network": network, "encoder_layers": list(captioner.layers), "split": asked.probe.split}
    place: Document = {**given, "seed": captioner.seed}
    place |= {"captions": captioner.captions.model_dump(mode="json"), "quantile": captioner.quantile}
    if captioner.weights is not None:
        file = {"given": captioner.weights.path, "words": captioner.weights.words}
        place["file"] = file
        digests |= {name: _sha256(path) for name, path in file.items() if path is not None}
        parameters["exemplars"] = captioner.exemplars
    elif isinstance(captioner.captions, CaptionFiles):
        digests["captions"] = _files_digest(captioner.captions.path)
        parameters |= {**model, "captions": {"kind": "files", "origin": captioner.captions.origin}}
    else:
        from tasks.io.drawn_regions import VERSION as DRAWING

        drawn = captioner.captions.model_dump(mode="json")
        parameters |= {**model, "captions": {**drawn, "drawing": DRAWING}}
    inputs = {"data": shared.manifests[asked.probe.data], **inputs}
    return CAPTIONER.spec(parameters, inputs, digests=digests, place=place, label=f"{captioner.encoder}")


@lru_cache(maxsize=2)
def open_captioner(store: Store, spec: StageSpec) -> tuple[Model, CaptionWords]:
    """Return the captioner of a finished stage in evaluation mode, and its vocabulary; this process caches them."""
    from tasks.detectors.caption_words import CaptionWords
    from tasks.detectors.captioner import captioner_of
    from tasks.io.tensors import unpack_tensors

    finished = open_finished(store, spec)
    words = CaptionWords(tuple(json.loads(finished.read_file(WORDS))))
    return captioner_of(unpack_tensors(finished.read_file(STATE))), words


def _sha256(path: str) -> str:
    """Return the digest of a file of weights or words."""
    try:
        return file_sha256(path)
    except ValueError as error:
        raise ValueError(f"{KEY}.weights: {error}") from error


def _files_digest(path: str) -> str:
    """Return the digest of regions with captions: of an archive, or of a folder's table and listing."""
    try:
        local = local_path(path)
        if local is not None and local.is_dir():
            return f"{file_sha256(f'{path}/{TABLE}')} {folder_digest(path)}"
        return file_sha256(path)
    except ValueError as error:
        raise ValueError(f"{KEY}.captions: {error}") from error


def given_file(spec: StageSpec) -> CaptionerFile:
    """Return the content of a stage's file, with its words.

    Raises
    ------
    ValueError : a file that does not fit; names the config's key
    """
    from tasks.io.captioner_files import CaptionerFile, read_captioner
    from tasks.io.words import read_words

    file = spec.place["file"]
    try:
        found = read_captioner(file["given"])
        words = found.words if file["words"] is None else read_words(file["words"]).words
        if not words:
            raise ValueError(f"captioner: file {file['given']}: expected words, found none; give them as `words`")
        return CaptionerFile(found.tensors, words)
    except ValueError as error:
        raise ValueError(f"{KEY}.weights: {error}") from error


def check_given(spec: StageSpec, features: int) -> int:
    """Return the number of parameters of the captioner of a stage's file.

    Raises
    ------
    ValueError : it does not fit the encoder or the words; names the config's key
    """
    from tasks.detectors.caption_words import CaptionWords
    from tasks.detectors.captioner import captioner_of

    tensors, words = given_file(spec)
    try:
        model = captioner_of(tensors)
    except ValueError as error:
        raise ValueError(f"{KEY}.weights: {error}") from error
    for name, expected, found in (
        ("features, those of the encoder's layers", features, model.sizes.features),
        ("tokens, those of the words", len(CaptionWords(words)), model.sizes.tokens),
    ):
        if expected != found:
            raise ValueError(f"{KEY}.weights: expected a captioner of {expected} {name}, found one of {found}")
    return sum(tensor.numel() for tensor in tensors.values())


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Train the captioner, or take that of a file."""
    import torch

    from tasks.detectors.captioner import captioner_of
    from tasks.io.tensors import pack_tensors

    torch.set_num_threads(1)
    spec = work.stage.spec
    if "file" in spec.place:
        tensors, words = given_file(spec)
        made = Made(dict(captioner_of(tensors).state_dict()), words, _table((), TESTED), _table((), LOSSES), {})
    else:
        made = _learn(work)
    with work.stage.partition(number) as part:
        part.write_file(STATE, pack_tensors(made.state))
        part.write_file(WORDS, json.dumps(made.words, ensure_ascii=False).encode())
        part.write_file(TEST, table_bytes(made.tested))
        part.write_file(CURVES, table_bytes(made.losses))
        part.numbers.update(measured(words=len(made.words), **made.numbers))


def _learn(work: Work) -> Made:
    """Train the captioner, and test it on regions of other images."""
    from tasks.detectors.caption_scores import caption_scores
    from tasks.detectors.caption_words import CaptionWords
    from tasks.detectors.captioner import Sizes, captioner_of
    from tasks.training.captioner import Plan, train_captioner

    spec, source = work.stage.spec, caption_source(work.stage.spec)
    rows, seed = source.regions(), int(spec.place["seed"])
    features = region_features(Encoder(work.stage.store, spec, choose_device(work.device)), source, rows)
    train, stop, test = divide([row.origin for row in rows], float(spec.parameters["held_out"]), seed)
    words = CaptionWords.of(rows[at].caption for at in train)
    trained, stopping, tested = (learned_regions(features, rows, at, words) for at in (train, stop, test))
    hidden, embedding = int(spec.parameters["hidden"]), int(spec.parameters["embedding"])
    attention = min(hidden, features.shape[1])
    sizes = Sizes(features.shape[1], len(words), embedding, hidden, attention, embedding, hidden)
    losses: list[tuple[str, int, float]] = []
    exemplars, epochs, patience = (int(spec.parameters[name]) for name in ("exemplars", "epochs", "patience"))
    plan = Plan(exemplars, epochs, patience, seed)
    state = train_captioner(trained, stopping, sizes, plan, lambda *found: losses.append(found))
    captions = dict.fromkeys(rows[at].caption for at in test)
    found = describe_captions(captioner_of(state), words, tested, plan)
    scores = caption_scores(found, list(captions), seed)
    numbers = {"regions": len(train), "stopping": len(stop), "tested": len(test), **_named(scores)}
    known = _table(zip(captions, found, strict=True), TESTED)
    return Made(state, words.words, known, _table(losses, LOSSES), numbers)


def _named(scores: CaptionScores) -> Document:
    """Return the scores that are numbers, by name; `words` counts the vocabulary."""
    found = {name.replace("words", "words_f1"): value for name, value in scores._asdict().items()}
    return {name: value for name, value in found.items() if value == value}


def _table(rows: Iterable[tuple[Json, ...]], names: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table."""
    return pd.DataFrame(list(rows), columns=list(names))


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the scores on regions of other images; without scores for the captioner of a file."""
    marker = stage.marker(0)
    assert marker is not None
    names = ("words", "regions", "stopping", "tested", "bleu", "words_f1", "null_bleu", "null_words_f1", "n")
    return {name: marker["numbers"][name] for name in names if name in marker["numbers"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    width = count_features(spec, survey)
    if "file" in spec.place:
        n = check_given(spec, width)
        return Size(8 * n, 16 * n)
    source, hidden = caption_source(spec), int(spec.parameters["hidden"])
    try:
        n, n_origins = len(source.regions()), len({row.origin for row in source.regions()})
        if isinstance(source, RegionFiles):
            source.check()
        if n_origins < 3:
            raise ValueError(f"regions: expected at least 3 origins to train, stop and test, found {n_origins}")
    except ValueError as error:
        raise ValueError(f"{KEY}.captions: {error}") from error
    parameters = 4 * (12 * hidden * (hidden + width) + 3 * n * hidden + 16 * hidden * hidden)
    images = BATCH * 3 * 4 * LONGEST_SIDE**2
    return Size(parameters, 8 * parameters + 4 * n * width + images + encoder_bytes(spec, survey, BATCH))


CAPTIONER = Step("captioner", VERSION, _layout, _partition, _size, summary=_summary, network=True)
