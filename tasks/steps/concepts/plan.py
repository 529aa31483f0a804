"""The stages of question 3 for a config, as specs: a plan does not read the store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import PurePath

from configs.concepts import LABELS, Concepts
from configs.schema import Config
from storage.specs import StageSpec
from tasks.steps.common.question import Shared
from tasks.steps.concepts.attacked import attacked_spec
from tasks.steps.concepts.captioner import captioner_spec
from tasks.steps.concepts.concept_side import concept_side_spec
from tasks.steps.concepts.descriptions import descriptions_spec
from tasks.steps.concepts.detector import Probed
from tasks.steps.concepts.detectors import DETECTORS, check_detectors, detector_settings, threshold_settings
from tasks.steps.concepts.exemplars import exemplars_spec
from tasks.steps.concepts.image_features import image_features_spec
from tasks.steps.concepts.neurons import neurons_spec
from tasks.steps.concepts.paradigms import paradigms_of
from tasks.steps.concepts.plane import plane_spec
from tasks.steps.concepts.planted import planted_spec
from tasks.steps.concepts.private import check_private
from tasks.steps.concepts.responses import responses_specs
from tasks.steps.concepts.text_side import check_describes, image_side, text_side
from tasks.steps.concepts.watched import Series, Watched, series_of
from tasks.steps.concepts.words import words_spec


@dataclass(frozen=True)
class View:
    """A detector with a word list, which looks at all neurons.

    Attributes
    ----------
    name : of the detector and the word list, for people and tables
    detector : name of the detector
    words : the word list with vectors in the space of words; of captions, the words that give them categories
    probed : what the detector reads
    planted : what it finds for planted neurons; None without a truth to plant
    """

    name: str
    detector: str
    words: StageSpec
    probed: Probed
    planted: StageSpec | None


@dataclass(frozen=True)
class Seen:
    """The neurons of one layer at one snapshot, as one detector sees them."""

    snapshot: int
    layer: str
    view: View
    neurons: StageSpec

    @property
    def words(self) -> StageSpec:
        """The words that the detector gives to neurons: those of the view, or captions."""
        return self.neurons.inputs["words"]


@dataclass(frozen=True)
class Monitored:
    """One network and seed of question 3, with the stages of its answer.

    Attributes
    ----------
    snapshots : in order
    responses : by layer, for each snapshot
    views : every detector with every word list
    seen : every snapshot, layer and view
    anchors : the words from which distances are measured; None for all words
    plane : the map of the space of words, with all neurons
    exemplars : pictures of the neurons that the page shows; None where it shows none
    track : neurons that the page follows, by layer
    left_out : a line for each checkpoint that is left out
    attacked : each snapshot under attack; empty where the config does not ask for it
    paradigm : kind of the training and the network that it is compared with; None where unknown
    tensorboard : whether the report has files for TensorBoard
    taught : what taught the neurons of each layer, where question 4 is asked of the network too
    untaught : why `taught` is empty
    """

    network: str
    seed: int
    snapshots: tuple[Watched, ...]
    responses: tuple[Mapping[str, StageSpec], ...]
    views: tuple[View, ...]
    seen: tuple[Seen, ...]
    anchors: StageSpec | None
    plane: StageSpec
    exemplars: StageSpec | None
    track: Mapping[str, tuple[int, ...]]
    left_out: tuple[str, ...]
    attacked: tuple[StageSpec, ...] = ()
    paradigm: tuple[str, str] | None = None
    tensorboard: bool = False
    taught: tuple[StageSpec, ...] = ()
    untaught: str = ""

    @property
    def finals(self) -> Sequence[StageSpec]:
        """Return the stages that no other stage of the answer reads."""
        planted = [view.planted for view in self.views if view.planted is not None]
        pictures = [] if self.exemplars is None else [self.exemplars]
        return (*(each.neurons for each in self.seen), self.plane, *planted, *pictures, *self.attacked, *self.taught)


def plan_concepts(config: Config, shared: Shared) -> Sequence[Monitored]:
    """Return the stages of question 3 for each network and seed.

    Raises
    ------
    ValueError : an unknown detector or parameter, a file that cannot be read; the message names the config's key
    """
    return plan_series(config, shared, partial(series_of, config, shared))


def plan_series(config: Config, shared: Shared, find: Callable[[str, int], Series]) -> Sequence[Monitored]:
    """Return the stages of question 3 for each network and seed with a snapshot.

    Parameters
    ----------
    find : returns the snapshots of a network and seed

    Raises
    ------
    ValueError : as for `plan_concepts`
    """
    asked = config.concepts
    assert asked is not None
    check_detectors(asked)
    _check_tensorboard(asked)
    check_private(config, shared)
    captioner = None
    if asked.captioner is not None:
        captioner = captioner_spec(config, shared, asked, asked.captioner)
        check_describes(asked)
    views = tuple(_views(asked, shared.manifests[asked.probe.data], captioner))
    found = ((name, seed, find(name, seed)) for name, seed in product(asked.networks, config.seeds))
    return [_monitored(config, shared, views, (name, seed), series) for name, seed, series in found if series.snapshots]


def _check_tensorboard(asked: Concepts) -> None:
    """Raise ValueError where files for TensorBoard are asked for and its package is not installed."""
    if asked.tensorboard and find_spec("tensorboard") is None:
        raise ValueError(
            "concepts.tensorboard: expected the package tensorboard, found none; install layerlore[tensorboard], or "
            "set it to false"
        )


def _views(asked: Concepts, manifest: StageSpec, captioner: StageSpec | None) -> Iterator[View]:
    """Yield every detector with every word list; label maps have the words of the probing set only.

    Captions are words of their own. They take the first word list for their categories.
    """
    text, lists = text_side(asked), _list_names(asked.words)
    scored = any(DETECTORS[name].needs_scores for name in asked.detectors)
    images = image_features_spec(manifest, asked.probe.split, image_side(asked)) if scored else None
    for name, settings in asked.detectors.items():
        detector = DETECTORS[name]
        chosen = {"cosines": asked.words, "label maps": (LABELS,), "regions": asked.words[:1]}[detector.source]
        for number, path in enumerate(chosen):
            words = words_spec(manifest, path, text)
            side = None
            if detector.needs_scores:
                assert images is not None
                side = concept_side_spec(images, words_spec(manifest, path, image_side(asked)))
            probed = Probed(words, side, captioner if detector.source == "regions" else None)
            planted = planted_spec(name, detector, manifest, asked, probed, detector_settings(settings))
            yield View(f"{name} ({lists[number]})" if number else name, name, words, probed, planted)


def _list_names(paths: Sequence[str]) -> list[str]:
    """Return a short name for each word list: the name of its file, or its path where two files have one name."""
    stems = [PurePath(path).stem for path in paths]
    return [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)]


def _monitored(
    config: Config, shared: Shared, views: tuple[View, ...], of: tuple[str, int], series: Series
) -> Monitored:
    """Return the stages of one network and seed."""
    asked, (name, seed) = config.concepts, of
    assert asked is not None
    manifest = shared.manifests[asked.probe.data]
    kept_maps, notes = _keeps_maps(asked), ["; ".join(series.left_out), *[""] * len(series.snapshots)]
    responses = tuple(
        responses_specs(each, manifest, asked, kept_maps=kept_maps, note=note)
        for each, note in zip(series.snapshots, notes, strict=False)
    )
    anchors = None if asked.anchors is None else words_spec(manifest, asked.anchors, text_side(asked))
    seen = tuple(
        Seen(number, layer, view, _neurons(asked, found[layer], layer, view, anchors))
        for (number, found), layer, view in product(enumerate(responses), asked.layers_of(name), views)
    )
    plane = plane_spec(views[0].words, anchors, [each.neurons for each in seen], asked.plane)
    shown = [each.neurons for each in seen if each.snapshot == len(responses) - 1 and each.view is views[0]]
    pictures = exemplars_spec(responses[-1], shown, asked) if asked.shown and seed == config.seeds[0] else None
    inputs = name, seed, series.snapshots, responses, views, seen, anchors, plane, pictures, asked.track
    attacked = _attacked(config, shared, name, series.snapshots)
    return Monitored(*inputs, series.left_out, attacked, paradigms_of(config).get(name), asked.tensorboard)


def _attacked(config: Config, shared: Shared, name: str, snapshots: Sequence[Watched]) -> tuple[StageSpec, ...]:
    """Return the attack on each snapshot of a network, where the config asks for it."""
    assert config.concepts is not None
    asked = config.concepts.attack
    if asked is None or (asked.networks is not None and name not in asked.networks):
        return ()
    manifest = shared.manifests[asked.data]
    return tuple(attacked_spec(each, config.networks[name], manifest, asked) for each in snapshots)


def _neurons(asked: Concepts, responses: StageSpec, layer: str, view: View, anchors: StageSpec | None) -> StageSpec:
    """Return the neurons of one layer at one snapshot, as one detector sees them."""
    name, settings = view.detector, asked.detectors[view.detector]
    detected = DETECTORS[name].plan(responses, view.probed, layer, detector_settings(settings), asked.seed)
    words = view.words if view.probed.captioner is None else descriptions_spec(detected, view.words, text_side(asked))
    return neurons_spec(detected, words, anchors, name, threshold_settings(settings), asked.temperatures)


def _keeps_maps(asked: Concepts) -> bool:
    """Say whether a detector reads whole maps from the store."""
    return any(
        DETECTORS[name].source == "label maps" and settings.get("maps", "stored") == "stored"
        for name, settings in asked.detectors.items()
    )
