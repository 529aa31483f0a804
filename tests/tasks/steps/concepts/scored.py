"""A probing set with random image and text vectors, and the cosines of all images and words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from tasks.steps.concepts.concept_side import CONCEPT_SIDE, concept_side_spec
from tasks.steps.concepts.detector import Probed
from tests.tasks.steps.concepts.probing import COUNT, Probing, probing
from tests.tasks.steps.concepts.stand_ins import given, words_stage

WORDS, WIDTH = 30, 12
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A probing set with its word list and cosines (N, S)."""

    run: Probing
    words: StageSpec
    probed: Probed
    cosines: NDArray[np.float32]
    text: NDArray[np.float32]


def scored(place: Path, seed: int = 0, **settings: Any) -> Scored:  # Any: of the section `concepts`
    """Make the responses of a network, a word list and the cosines."""
    run = probing(place, kept=False, **settings)
    rng = np.random.default_rng(seed)
    images, text = (unit(rng.normal(size=(n, WIDTH))) for n in (COUNT, WORDS))
    words = words_stage(run.job, [f"word {number}" for number in range(WORDS)], text, run.manifest)
    keys = run.keys()
    sample_id = np.array([int(key.removeprefix("all/")) for key in keys])
    arrays: dict[str, Any] = {"sample_id": sample_id, "image": images}  # Any: any type
    summary = {"samples": COUNT}
    features = given(run.job, "image-features", arrays, {}, inputs={"data": run.manifest}, summary=summary)
    side = concept_side_spec(features, words)
    run.make(CONCEPT_SIDE, side)
    return Scored(run, words, Probed(words, side), images @ text.T, text)


def unit(rows: Floats) -> NDArray[np.float32]:
    """Return rows of length 1."""
    found: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found
