"""What a detector of concepts is: stages of its own, and the common form of what they find."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.step import Step

# Cosines of images and words, label maps of the images, or regions of the images that a captioner describes.
Source = Literal["cosines", "label maps", "regions"]


@dataclass(frozen=True)
class Detected:
    """What a detector finds for the neurons of a layer.

    Attributes
    ----------
    similarity : (K, S) float32, of each neuron and each word of the word list; 0 for dead neurons
    null_best : (K,) float32, the largest similarity of each neuron under the detector's null
    dead : (K,) bool, neurons with the same activation on all images
    """

    similarity: NDArray[np.float32]
    null_best: NDArray[np.float32]
    dead: NDArray[np.bool_]


@dataclass(frozen=True)
class Probed:
    """The stages that detectors read, for one word list.

    Attributes
    ----------
    words : the word list
    side : cosines of all probing images and words; None where no detector needs them
    captioner : the captioner; None where the detector describes no neurons
    """

    words: StageSpec
    side: StageSpec | None
    captioner: StageSpec | None = None


class Plan(Protocol):
    """Plans what a detector finds for one layer of one snapshot."""

    def __call__(
        self, responses: StageSpec, probed: Probed, layer: str, parameters: Mapping[str, Json], seed: int
    ) -> StageSpec:
        """Return the spec of the detector's last stage: specs only, no store is asked."""
        ...


@dataclass(frozen=True)
class Detector:
    """A detector of concepts.

    Attributes
    ----------
    steps : the kinds of stages that it brings
    plan : what it finds for one layer of one snapshot
    read : opens a finished last stage
    source : what it reads
    """

    steps: tuple[Step, ...]
    plan: Plan
    read: Callable[[Store, StageSpec], Detected]
    source: Source

    @property
    def needs_scores(self) -> bool:
        """Whether it reads cosines of images and words."""
        return self.source == "cosines"
