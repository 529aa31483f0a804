"""What a card shows of one image: frozen tables and pictures of each question, nothing from a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.figures.tracing.ridges import Ridges
from tasks.report.pages import Image

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Responding:
    """Question 1: where the features of a class respond in the image, by one interpreter.

    Attributes
    ----------
    interpreter, noun : the method, and what it calls a feature
    class_name : whose features
    role : "predicted" or "given"
    heat : (H, W) in [0, 1], of the features with the largest responses; None where positions are not rows and
        columns
    features : a row per feature, the largest gain first: feature, peak (largest response), gain (what its part of the
        map adds to the logit of the class) and share (gain as a part of the logit); NaN where gradients do not pass
    layer : name in the config
    """

    interpreter: str
    noun: str
    class_name: str
    role: str
    heat: NDArray[np.float32] | None
    features: pd.DataFrame
    layer: str


@dataclass(frozen=True)
class Deciding:
    """Question 2: the features of the last layer that decided the answer.

    Attributes
    ----------
    predicted, runner_up : class names
    features : a row per feature of the head, the largest contribution first: feature, value, weight, contribution
        (value x weight, in logits of the predicted class), against (the same, less that of the runner-up), in_set
        (whether the class keeps it), count (share of the class's images that it is among the largest of; NaN outside)
    logit, bias : of the predicted class
    kept : the class that the decomposed head answers
    k2 : features that a class keeps
    images : rows of pictures by feature, as `TopImages.rows` has them
    pictures : what `images` refers to by `picture`; empty where they may not be shown
    split : of these images
    values : (d,) the inputs of the head
    """

    predicted: str
    runner_up: str
    features: pd.DataFrame
    logit: float
    bias: float
    kept: str
    k2: int
    images: pd.DataFrame
    pictures: tuple[Image, ...]
    split: str
    values: NDArray[np.float32]

    @property
    def chosen(self) -> pd.DataFrame:
        """The features that the class keeps, the largest contribution first."""
        return self.features[self.features["in_set"]].reset_index(drop=True)


@dataclass(frozen=True)
class Holding:
    """Question 3: the interpretable neurons that the image activates most.

    Attributes
    ----------
    neurons : a row per neuron and detector, by falling `above`: layer, neuron, detector, word, category, similarity,
        activation, above (share of the probing images with a lower activation)
    course : a row per neuron, detector and snapshot: layer, neuron, detector, snapshot, step, label, word,
        interpretable
    words : the best word of every neuron at the last snapshot: layer, neuron, detector, word, similarity, interpretable
    maps : (h, w, K) what each layer answers to the image
    images : rows of pictures: layer, neuron, rank, sample_id, activation, picture
    pictures : by key
    snapshot : of the last snapshot, for people
    """

    neurons: pd.DataFrame
    course: pd.DataFrame
    words: pd.DataFrame
    maps: Mapping[str, NDArray[np.float32]]
    images: pd.DataFrame
    pictures: Mapping[str, Image]
    snapshot: str


@dataclass(frozen=True)
class Taught:
    """Question 4: the training images behind the answer.

    Attributes
    ----------
    layer : traced layer whose representation is divided
    output : whether it is the network's output layer
    examples : a row per score, end ("top", "bottom") and rank: score, end, rank, sample_id, key, class_name, sum,
        share, suspect (rank among the suspects, missing where it is none)
    classes : columns class_name, sum, share of ||z||^2, largest sum first
    course : columns epoch (from 1), class_name, share of ||z||^2
    parts : shares of ||z||^2 by name: init, decay, examples, unrecorded
    ridges : densities of the step cosines by class; None where steps mix classes
    images : (H, W, 3) uint8 training images by id; empty where they may not be shown
    query : number among the run's queries, None where the archive was read for this image
    steps : number of steps of the training
    n_suspects : training images that count as suspects; 0 where they were not ranked
    missing : why there is no counterfactual influence, "" where there is
    rough : whether the counterfactual influence does not predict retrainings of this network
    """

    layer: str
    output: bool
    examples: pd.DataFrame
    classes: pd.DataFrame
    course: pd.DataFrame
    parts: Mapping[str, float]
    ridges: Ridges | None
    images: Mapping[int, Image]
    query: int | None
    steps: int
    n_suspects: int
    missing: str
    rough: bool = False


@dataclass(frozen=True)
class CardResults:
    """All that a run knows of one image, for one network and seed.

    Attributes
    ----------
    run, network, seed : which
    title : what the image is, for people
    image : (H, W, 3) uint8, None where it may not be shown
    sample_id, key, split, data : where it comes from; None and "" for a file
    given : its class, "" for a file
    answers : a row per class, most probable first: class_name, probability, logit
    responding, deciding, holding, taught : the parts; None or empty where a question was not asked or says nothing
    missing : by question without a part: why, and how to ask it
    asked : names of the questions with a page in the report
    training_images : the config's `report.training_images`
    warning : why the answers of the network mean little, "" where they do not
    titles : what a layer is called, by its name
    words : the words of the head's features: feature, layer, neuron, detector, word, similarity, interpretable
    """

    run: str
    network: str
    seed: int
    title: str
    image: Image | None
    given: str
    answers: pd.DataFrame
    sample_id: int | None = None
    key: str = ""
    split: str = ""
    data: str = ""
    responding: tuple[Responding, ...] = ()
    deciding: Deciding | None = None
    holding: Holding | None = None
    taught: Taught | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    training_images: str = "show"
    warning: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)
    words: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["feature", "layer", "neuron", "word"]))

    def named(self, layer: str) -> str:
        """Return what a layer is called."""
        return self.titles.get(layer, layer)

    @property
    def predicted(self) -> str:
        """The class that the network answers."""
        return str(self.answers["class_name"].iloc[0])

    @property
    def wrong(self) -> bool:
        """Whether the answer is not the given class."""
        return bool(self.given) and self.predicted != self.given
