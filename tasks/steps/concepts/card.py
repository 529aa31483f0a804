"""The part of question 3 in a card of one image: its most active interpretable neurons, and their words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.responses import read_pooled
from tasks.steps.concepts.words import open_words

if TYPE_CHECKING:
    import pandas as pd

MOST = 8  # neurons of a card


def concepts_card(store: Store, answer: Monitored, sample_id: int) -> pd.DataFrame | None:
    """Return the interpretable neurons that a probing image activates most at the last snapshot.

    Parameters
    ----------
    answer : one network and seed, with finished stages
    sample_id : of the image

    Returns
    -------
    layer, neuron, detector, word, category, similarity, activation, and `above`, the share of the probing images with a
    lower activation; a row for each neuron and detector, by falling `above`. None where the image is not a probing
    image.
    """
    import pandas as pd

    responses = {layer: open_finished(store, spec) for layer, spec in answer.responses[-1].items()}
    at = np.flatnonzero(next(iter(responses.values())).read("sample_id") == sample_id)
    if not len(at):
        return None
    tables = []
    for seen in answer.seen:
        if seen.snapshot != len(answer.responses) - 1:
            continue
        pooled, words = read_pooled(responses[seen.layer], seen.layer), open_words(store, seen.words)
        found = read_neurons(open_finished(store, seen.neurons))
        held = found[(found["rank"] == 0) & found["interpretable"]]
        neuron, word = held["neuron"].to_numpy(np.int64), held["word"].to_numpy(np.int64)
        table = pd.DataFrame(
            {
                "layer": seen.layer,
                "neuron": neuron,
                "detector": seen.view.name,
                "word": np.array(words.names, object)[word],
                "category": np.array(words.categories, object)[word],
                "similarity": held["similarity"].to_numpy(),
                "activation": pooled[at[0], neuron],
                "above": (pooled[:, neuron] < pooled[at[0], neuron]).mean(axis=0),
            }
        )
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    return whole.sort_values(["above", "similarity"], ascending=False, kind="stable").head(MOST).reset_index(drop=True)
