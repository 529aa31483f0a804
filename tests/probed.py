"""A config that asks all of question 3 in a few seconds, and the file of image and text features that it reads."""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.io.annotations import coverage
from tasks.io.mini_broden import MiniBrodenSource
from tasks.io.words import WordList

Tree = dict[str, Any]  # Any: YAML
COUNT, SIZE = 64, 32  # probing images, and their side in pixels
FEATURES = "features.npz"


def probed_config(store: str) -> Tree:
    """Return the config: a training of 16 steps with 2 snapshots, 64 drawn images, two detectors.

    The features lie in the folder of the store.
    """
    return {
        "name": "probed",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {
            "digits": {"source": "sklearn-digits", "per_class": {"train": 12, "val": 4}},
            "probe": {"source": "mini-broden", "count": COUNT, "size": SIZE},
        },
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 6},
                "train": {
                    "data": "digits",
                    "epochs": 2,
                    "optimizer": {"kind": "sgd", "lr": 0.05},
                    "batches": {"size": 16},
                    "checkpoint_every": 5,
                    "snapshots": [0, 16],
                },
                "preprocessing": {"mode": "L"},
            }
        },
        "concepts": {
            "networks": ["small"],
            "layers": ["2", "8"],
            "probe": {"data": "probe", "size": SIZE},
            "image_text": {"kind": "features", "path": str(Path(store).parent / FEATURES), "words": "words"},
            "detectors": {"soft_wpmi": {"top_k": 10}, "network-dissection": {"quantile": 0.05}},
            "anchors": ["red", "striped"],
            "track": {"2": [1]},
            "temperatures": [0.05],
            "shown": 3,
        },
    }


def save_features(path: Path) -> None:
    """Write features of the drawn images and their words: the shares that the words cover, with little noise."""
    source = MiniBrodenSource(COUNT, SIZE, 0)
    keys = [row.key for row in source.rows()]
    vocabulary = source.vocabulary()
    words = WordList.of_vocabulary(vocabulary)
    shares = coverage(source.masks(keys), len(vocabulary.names))
    at = words.label_positions(vocabulary)
    rng, n_words = np.random.default_rng(0), len(words.words)
    images = rng.normal(0, 0.01, (COUNT, n_words))
    for label in range(1, len(at)):
        images[:, at[label]] += shares[:, label]
    texts = np.eye(n_words) + rng.normal(0, 0.01, (n_words, n_words))
    np.savez(path, images=images.astype(np.float32), texts=texts.astype(np.float32), words=np.array(words.words))
