"""The neurons stage: the embedding of a layer's neurons in the space of words, and all counts and distances of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.concepts.descriptions import count_descriptions
from tasks.steps.concepts.detector import Detected
from tasks.steps.concepts.detectors import CALIBRATED, SHIPPED, detector_of
from tasks.steps.concepts.responses import layer_sizes
from tasks.steps.concepts.words import Words, count_words, open_words

VERSION = 1
BEST = 5  # words kept of each neuron
N_TAUS = 41  # thresholds of the tau curve
NEURONS_FILE, TAUS_FILE, TEMPERATURES_FILE = "neurons.parquet", "taus.parquet", "temperatures.parquet"
ANCHORS_FILE = "anchors.parquet"

Floats = NDArray[np.float32]


def neurons_spec(
    detected: StageSpec,
    words: StageSpec,
    anchors: StageSpec | None,
    detector: str,
    settings: Mapping[str, Json],
    temperatures: Sequence[float],
) -> StageSpec:
    """Return the spec of the embedding of a layer's neurons.

    Parameters
    ----------
    detected : what the detector found
    words : the word list with the vectors of the space of words
    anchors : the words from which distances are measured; None for all words
    settings : temperature and tau, where the config sets them
    temperatures : of the ablation

    Notes
    -----
    Captions are words of their own, at distance 0 from their neurons: without anchors, the words of the word list are
    theirs.
    """
    kept = without_defaults({"temperatures": sorted(temperatures)}, {"temperatures": []})
    parameters = {"detector": detector, **settings, **kept}
    inputs = {"detected": detected, "words": words} | ({} if anchors is None else {"anchors": anchors})
    return NEURONS.spec(parameters, inputs, label=detected.label)


def read_neurons(finished: FinishedStage) -> pd.DataFrame:
    """Return the words of each neuron: neuron, rank, word (index), similarity; and interpretable, dead, null_best."""
    return read_table(finished.read_file(NEURONS_FILE), f"{finished.path}/files/{NEURONS_FILE}")


def _layout(store: Store, spec: StageSpec) -> Layout:
    dead = detector_of(spec).read(store, spec.inputs["detected"]).dead
    width = open_words(store, spec.inputs["words"]).text.shape[1]
    return Layout(
        1, {"embedding": ArrayLayout((len(dead), width), "float32", ("neuron", "dimension"), len(dead), len(dead))}
    )


def _partition(work: Work, number: int) -> None:
    """Embed the neurons, count and measure; dead neurons take no part."""
    import torch

    from tasks.concepts import neuron_embeddings

    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    torch.set_num_threads(1)
    found, words = detector_of(spec).read(store, spec.inputs["detected"]), open_words(store, spec.inputs["words"])
    asked = open_words(store, spec.inputs["anchors"]) if "anchors" in spec.inputs else None
    alive, anchors = ~found.dead, _anchors(store, spec).text
    similarity = found.similarity[alive]
    embedding = np.zeros((len(alive), words.text.shape[1]), np.float32)
    if alive.any():
        embedding[alive] = neuron_embeddings(similarity, words.text, temperature_of(spec))
    tau = _tau(spec, found)
    table = _best_words(found, tau)
    with stage.partition(number) as part:
        part.write("embedding", embedding)
        part.write_file(NEURONS_FILE, table_bytes(table))
        part.write_file(TAUS_FILE, table_bytes(_taus(found, tau)))
        part.write_file(TEMPERATURES_FILE, table_bytes(_temperatures(spec, similarity, words.text, anchors)))
        part.write_file(ANCHORS_FILE, table_bytes(_anchor_table(embedding, np.flatnonzero(alive), asked)))
        part.numbers.update(measured(**_metrics(found, table, embedding[alive], anchors, tau)))


def _anchors(store: Store, spec: StageSpec) -> Words:
    """Return the words from which distances are measured: those that the config names, or the whole word list."""
    own = spec.inputs["words"]
    return open_words(store, spec.inputs.get("anchors", own.inputs.get("words", own)))


def temperature_of(spec: StageSpec) -> float:
    """Return the temperature of a stage's embedding: as the config sets it, or the detector's own."""
    from tasks.detectors.defaults import DEFAULTS

    return float(spec.parameters.get("temperature", DEFAULTS[spec.parameters["detector"]].temperature))


def _tau(spec: StageSpec, found: Detected) -> float:
    """Return the threshold: as the config sets it, that of the detector, or the 0.99 quantile of the null.

    The last is the default of similarities, whose range depends on the layer and the words. It is infinite without a
    live neuron.
    """
    from tasks.concepts.interpretable import calibrated_tau
    from tasks.detectors.defaults import default_tau

    detector, alive = detector_of(spec), ~found.dead
    tau = spec.parameters.get("tau", SHIPPED if detector.source == "label maps" else CALIBRATED)
    if tau == CALIBRATED:
        return calibrated_tau(found.null_best[alive]) if alive.any() else float("inf")
    if tau != SHIPPED:
        return float(tau)
    own = spec.inputs["detected"].parameters["settings"] if detector.needs_scores else {}
    return default_tau(spec.parameters["detector"], max(1, int(alive.sum())), found.similarity.shape[1], **own)


def _best_words(found: Detected, tau: float) -> pd.DataFrame:
    """Return the most similar words of each neuron, a row for each neuron and rank."""
    from tasks.concepts.interpretable import interpretable, top_words

    order = top_words(found.similarity, BEST)
    n_neurons, count = order.shape
    return pd.DataFrame(
        {
            "neuron": np.repeat(np.arange(n_neurons), count),
            "rank": np.tile(np.arange(count), n_neurons),
            "word": order.ravel(),
            "similarity": np.take_along_axis(found.similarity, order, axis=1).ravel(),
            "interpretable": np.repeat(interpretable(found.similarity, tau, found.dead), count),
            "dead": np.repeat(found.dead, count),
            "null_best": np.repeat(found.null_best, count),
        }
    )


def _taus(found: Detected, tau: float) -> pd.DataFrame:
    """Return the number of interpretable neurons by threshold, and that of the null."""
    from tasks.concepts.interpretable import tau_curve

    best = found.similarity.max(axis=1)
    values = np.concatenate([best[~found.dead], found.null_best[~found.dead], [tau] if np.isfinite(tau) else []])
    if not len(values):
        return pd.DataFrame({"tau": [], "interpretable": [], "null": []})
    taus = np.unique(np.append(np.linspace(values.min(), values.max(), N_TAUS), tau))
    null = tau_curve(found.null_best, taus, found.dead)
    return pd.DataFrame({"tau": taus, "interpretable": tau_curve(best, taus, found.dead), "null": null})


def _temperatures(spec: StageSpec, similarity: Floats, text: Floats, anchors: Floats) -> pd.DataFrame:
    """Return the anchor distance by temperature."""
    from tasks.concepts.embedding import temperature_ablation

    wanted = sorted({*spec.parameters.get("temperatures", []), temperature_of(spec)})
    distances = temperature_ablation(similarity, text, anchors, wanted) if len(similarity) else np.nan
    return pd.DataFrame({"temperature": wanted, "d_anchor": distances})


def _anchor_table(embedding: Floats, alive: NDArray[np.int64], anchors: Words | None) -> pd.DataFrame:
    """Return the nearest neuron of each anchor that the config names, and its distance."""
    from tasks.concepts.distances import anchor_distances

    if anchors is None or not len(alive):
        return pd.DataFrame({"word": pd.Series(dtype=str), "neuron": pd.Series(dtype=int), "distance": []})
    distance, nearest = anchor_distances(embedding[alive], anchors.text)
    return pd.DataFrame({"word": anchors.names, "neuron": alive[nearest], "distance": distance})


def _metrics(found: Detected, table: pd.DataFrame, embedding: Floats, anchors: Floats, tau: float) -> Document:
    """Return the numbers of a layer: distances between live neurons, and counts of neurons."""
    from tasks.concepts import anchor_distance
    from tasks.concepts.distances import mean_pairwise_distance

    best = table[table["rank"] == 0]
    held = best[best["interpretable"]]
    return {
        "neurons": len(best),
        "dead": int(found.dead.sum()),
        "d_anchor": float(anchor_distance(embedding, anchors)) if len(embedding) else None,
        "mean_pairwise": mean_pairwise_distance(embedding) if len(embedding) > 1 else None,
        "interpretable": len(held),
        "null_interpretable": int(((found.null_best > tau) & ~found.dead).sum()),
        "distinct": int(held["word"].nunique()),
        "tau": tau if np.isfinite(tau) else None,
    }


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the numbers of the layer."""
    marker = stage.marker(0)
    assert marker is not None
    names = ("neurons", "dead", "d_anchor", "mean_pairwise", "interpretable", "null_interpretable", "distinct", "tau")
    return {name: marker["numbers"][name] for name in names}


def _size(spec: StageSpec, survey: Survey) -> Size:
    words, detected = spec.inputs["words"], spec.inputs["detected"]
    n_words = count_descriptions(words, survey) if "detected" in words.inputs else count_words(words, survey)
    n_neurons = layer_sizes(detected.inputs["responses"], survey)[detected.parameters["layer"]].n_channels
    return Size(
        4 * n_neurons * 512 + 64 * n_neurons * BEST, 8 * 4 * n_neurons * n_words + 16 * (n_words + n_neurons) * 1024
    )


NEURONS = Step("neurons", VERSION, _layout, _partition, _size, summary=_summary)
