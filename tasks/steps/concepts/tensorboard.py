"""What question 3 gives to TensorBoard, gathered from finished stages."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from storage.stages import open_finished
from storage.stores import Store
from tasks.report.concepts.results import ConceptResults
from tasks.report.concepts.tensorboard import Embedding, tensorboard_files
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.words import open_words


def files_for_tensorboard(store: Store, answers: Sequence[Monitored], results: ConceptResults) -> dict[str, bytes]:
    """Return the files for TensorBoard, by path below the report; none where the config does not ask for them."""
    asked = [answer for answer in answers if answer.tensorboard]
    embeddings = [each for answer in asked for each in embeddings_of(store, answer)]
    return tensorboard_files(results, embeddings) if asked else {}


def embeddings_of(store: Store, answer: Monitored) -> Iterator[Embedding]:
    """Yield the live neurons of each layer at the last snapshot, as each detector sees them, with all words."""
    for seen in answer.seen:
        if seen.snapshot != len(answer.snapshots) - 1:
            continue
        finished, words = open_finished(store, seen.neurons), open_words(store, seen.words)
        table = read_neurons(finished)
        best = table[(table["rank"] == 0) & ~table["dead"]]
        word = best["word"].to_numpy(np.int64)
        names = [f"neuron {neuron}" for neuron in best["neuron"]]
        of_neurons = {"word": np.array(words.names, object)[word], "category": np.array(words.categories, object)[word]}
        of_words = {"name": words.names, "word": words.names, "category": words.categories, "kind": "word"}
        rows = pd.concat([pd.DataFrame({"name": names, **of_neurons, "kind": "neuron"}), pd.DataFrame(of_words)])
        vectors = np.concatenate([finished.read("embedding")[best["neuron"].to_numpy()], words.text])
        yield Embedding(answer.network, answer.seed, f"{seen.layer} {seen.view.name}", vectors, rows)
