"""The part of question 3 in a card of one image: its most active interpretable neurons, their words, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.report.cards.results import Holding
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.subject import Look
from tasks.steps.concepts.course import snapshot_step
from tasks.steps.concepts.exemplars import read_exemplars
from tasks.steps.concepts.grids import pool_maps, read_grid
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.plan import Monitored, Seen
from tasks.steps.concepts.responses import Floats, map_sizes, read_pooled, together
from tasks.steps.concepts.words import open_words

MOST = 8  # neurons of a card
NEURON = ["layer", "neuron", "detector", "word", "category", "similarity", "activation", "above"]
COURSE = ["layer", "neuron", "detector", "snapshot", "step", "label", "word", "interpretable"]


def concepts_card(look: Look, answer: Monitored) -> Holding:
    """Return the interpretable neurons that an image activates most at the last snapshot.

    The image is taken at the size that the network was made for, which may differ from that of the probing images.
    """
    store, last = look.store, len(answer.responses) - 1
    maps = _respond(look, together(list(answer.responses[last].values())))
    words = pd.concat([_words(store, seen) for seen in answer.seen if seen.snapshot == last], ignore_index=True)
    pool = str(next(iter(answer.responses[last].values())).place["pool"])
    grids = {layer: read_grid(open_finished(store, answer.responses[last][layer]), layer) for layer in maps}
    pooled = {layer: pool_maps(found[None], pool, grids[layer])[0] for layer, found in maps.items()}
    neurons = _most_active(store, answer, words[words["interpretable"]], pooled)
    exemplars, pictures = read_exemplars(store, [answer])
    return Holding(
        neurons=neurons,
        course=_course(store, answer, neurons),
        words=words,
        maps=maps,
        images=exemplars,
        pictures=pictures,
        snapshot=answer.snapshots[last].label,
    )


def _respond(look: Look, spec: StageSpec) -> dict[str, NDArray[np.float32]]:
    """Return what the neurons of each layer answer to the image, (h, w, K); vectors are maps of one position."""
    import torch

    from tasks.capture import capture_layers
    from tasks.splitting.outputs import find_layouts

    device = choose_device("auto")
    model, inputs = load_network(look.store, spec, device), look.subject.inputs.to(device)
    with torch.inference_mode():
        layouts = find_layouts(model, spec.place["layers"], inputs, spec.place["layout"])
        outputs = capture_layers(model, spec.place["layers"], inputs, layouts)
    maps = {}
    for layer, output in outputs.items():
        neurons, height, width = map_sizes(layouts[layer])
        maps[layer] = output.reshape(height, width, neurons).astype(np.float32, copy=False)
    return maps


def _words(store: Store, seen: Seen) -> pd.DataFrame:
    """Return the best word of each neuron of a layer, as one detector sees it."""
    words, found = open_words(store, seen.words), read_neurons(open_finished(store, seen.neurons))
    best = found[found["rank"] == 0]
    at = best["word"].to_numpy(np.int64)
    return pd.DataFrame(
        {
            "layer": seen.layer,
            "neuron": best["neuron"].to_numpy(np.int64),
            "detector": seen.view.name,
            "word": np.array(words.names, object)[at],
            "category": np.array(words.categories, object)[at],
            "similarity": best["similarity"].to_numpy(np.float64),
            "interpretable": best["interpretable"].to_numpy(bool),
        }
    )


def _most_active(store: Store, answer: Monitored, held: pd.DataFrame, pooled: Mapping[str, Floats]) -> pd.DataFrame:
    """Return the rows of `held` with the activation of the image, those above most probing images first."""
    tables = []
    for layer, rows in held.groupby("layer", sort=False):
        probing = read_pooled(open_finished(store, answer.responses[-1][str(layer)]), str(layer))
        neuron = rows["neuron"].to_numpy(np.int64)
        own = pooled[str(layer)][neuron]
        tables.append(rows.assign(activation=own, above=(probing[:, neuron] < own).mean(axis=0)))
    if not tables:
        return pd.DataFrame(columns=NEURON)
    ranked = pd.concat(tables).sort_values(["above", "similarity"], ascending=False, kind="stable")
    places = ranked[["layer", "neuron"]].drop_duplicates().head(MOST)
    return ranked.merge(places, on=["layer", "neuron"], how="inner")[NEURON].reset_index(drop=True)


def _course(store: Store, answer: Monitored, neurons: pd.DataFrame) -> pd.DataFrame:
    """Return the word of each of these neurons at every snapshot, and whether it is interpretable there."""
    wanted = neurons[["layer", "neuron", "detector"]]
    rows = [row for seen in answer.seen for row in _snapshot(store, answer, seen, wanted)]
    found = pd.DataFrame(rows, columns=COURSE)
    return found.sort_values(["layer", "neuron", "detector", "snapshot"], kind="stable", ignore_index=True)


def _snapshot(store: Store, answer: Monitored, seen: Seen, wanted: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one layer, snapshot and detector."""
    mine = wanted[(wanted["layer"] == seen.layer) & (wanted["detector"] == seen.view.name)]["neuron"]
    if mine.empty:
        return
    watched, table = answer.snapshots[seen.snapshot], _words(store, seen).set_index("neuron")
    step = -1 if watched.named else snapshot_step(store, watched)
    for neuron in mine.tolist():
        row = table.loc[neuron]
        held = bool(row["interpretable"])
        yield seen.layer, neuron, seen.view.name, seen.snapshot, step, watched.label, row["word"], held
