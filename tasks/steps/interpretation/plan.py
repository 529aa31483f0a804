"""The stages of question 1 for a config, as specs: a plan does not read the store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from configs.interpretation import Interpretation
from configs.schema import Config
from storage.specs import StageSpec
from tasks.coresets import BLIND
from tasks.steps.common.activations import activations_spec
from tasks.steps.common.question import Shared
from tasks.steps.interpretation.card_pictures import card_pictures_spec
from tasks.steps.interpretation.cards import cards_spec
from tasks.steps.interpretation.coreset_maps import RECOMPUTE
from tasks.steps.interpretation.evaluation import evaluation_spec
from tasks.steps.interpretation.gallery import gallery_spec
from tasks.steps.interpretation.methods import METHODS, check_methods, method_of
from tasks.steps.interpretation.selection import selection_spec


@dataclass(frozen=True)
class Cell:
    """One coreset of a network and seed for one interpreter, with its stages; only first draws have `scores`.

    Attributes
    ----------
    selector : name of the selector, with " from NETWORK" for a coreset of another network
    coreset_from : the network whose activations selected the coreset
    """

    network: str
    seed: int
    interpreter: str
    selector: str
    coreset_from: str
    repeat: int
    budget: float
    selection: StageSpec
    features: StageSpec
    evaluation: StageSpec
    scores: StageSpec | None = None


@dataclass(frozen=True)
class Interpreted:
    """One network and seed of question 1, with the stages of its answer.

    Attributes
    ----------
    learn, held_out : activations that features are learned from, and activations that compare them
    references : features of the full data, by interpreter
    cells : every interpreter, selector, repeat and budget
    galleries : galleries by title; only the first seed of a network has them
    cards : cards of the features of the full data and of each first draw, by path of the features
    card_pictures : the pictures of these cards; only the first seed of a network has them
    pictures : pictures of what only coresets show, by interpreter; where there are galleries
    trained : the splits that a network of the config is trained on, asked about or not
    seen : what learns from the images that should be held out: "features", "network" or ""
    """

    network: str
    seed: int
    learn: StageSpec
    held_out: StageSpec
    references: Mapping[str, StageSpec]
    cells: tuple[Cell, ...]
    galleries: Mapping[str, StageSpec]
    pictures: Mapping[str, StageSpec]
    cards: Mapping[str, StageSpec] = field(default_factory=dict)
    card_pictures: StageSpec | None = None
    trained: frozenset[str] = frozenset()
    seen: str = ""

    @property
    def finals(self) -> Sequence[StageSpec]:
        """Return the stages that no other stage of the answer reads."""
        scores = (cell.scores for cell in self.cells if cell.scores is not None)
        pictures = () if self.card_pictures is None else (self.card_pictures,)
        finals = (*(cell.evaluation for cell in self.cells), *scores, *self.galleries.values(), *self.pictures.values())
        return (*finals, *self.cards.values(), *pictures)


@dataclass(frozen=True)
class _Network:
    """The inputs of the cells of one network and seed.

    Attributes
    ----------
    selects : the activations that select coresets, by network: its own first, then those of the senders
    """

    name: str
    seed: int
    learn: StageSpec
    held_out: StageSpec
    selects: Mapping[str, StageSpec]


def plan_interpretation(config: Config, shared: Shared) -> Sequence[Interpreted]:
    """Return the stages of question 1 for each network and seed.

    Raises
    ------
    ValueError : an unknown method or parameter, or weights that cannot be read; the message names the config's key
    """
    asked = config.interpretation
    assert asked is not None
    check_methods(asked)
    trained = frozenset(network.train.split for network in config.networks.values() if network.train)
    answers = (
        _interpreted(asked, _network(config, asked, shared, name, seed), shown=seed == config.seeds[0])
        for name, seed in product(asked.networks, config.seeds)
    )
    return [replace(answer, trained=trained, seen=_seen(config, asked, answer.network)) for answer in answers]


def _seen(config: Config, asked: Interpretation, name: str) -> str:
    """Say what learns from the split on which features are compared: the features, only the network, or neither."""
    if asked.learn == asked.evaluate:
        return "features"
    train = config.networks[name].train
    if train is None or train.data != config.data_of(name, "interpretation"):
        return ""
    return "network" if train.split == asked.evaluate else ""


def _network(config: Config, asked: Interpretation, shared: Shared, name: str, seed: int) -> _Network:
    """Return the activations of one network and seed for the cells."""
    learn, held_out = (_activations(config, asked, shared, (name, seed), s) for s in (asked.learn, asked.evaluate))
    others = [sender for sender in asked.senders if sender != name]
    senders = {other: _activations(config, asked, shared, (other, seed), asked.learn) for other in others}
    return _Network(name, seed, learn, held_out, {name: learn, **senders})


def _activations(
    config: Config, asked: Interpretation, shared: Shared, setting: tuple[str, int], split: str
) -> StageSpec:
    """Return the activations of a network and seed on a split; without maps where no stage reads them."""
    name, _ = setting
    manifest = shared.manifests[config.data_of(name, "interpretation")]
    network, training = config.networks[name], shared.trainings.get(setting)
    settings = asked.model_dump(include={"layer", "layout", "tokens", "dtype"})
    maps = split == asked.evaluate or _keeps_maps(asked)
    return activations_spec(name, network, manifest, training, split=split, maps=maps, **settings)


def _keeps_maps(asked: Interpretation) -> bool:
    """Say whether the maps that features are learned from are stored: unless the config has them recomputed."""
    methods = asked.interpreters.items()
    recomputed = any(parameters.get("maps") == RECOMPUTE for _, parameters in methods)
    return not recomputed or any(METHODS[name].reads_maps(parameters) for name, parameters in methods)


def _interpreted(asked: Interpretation, network: _Network, *, shown: bool) -> Interpreted:
    """Return the stages of one network and seed, with galleries if it is `shown`."""
    full = selection_spec(network.learn, "", {}, 1.0, network.seed, 0)
    references = {
        name: METHODS[name].plan(network.learn, full, parameters, network.seed)
        for name, parameters in asked.interpreters.items()
    }
    cells = tuple(cell for name in references for cell in _cells(asked, network, name, references[name]))
    pictured = shown and asked.gallery != 0
    galleries = _galleries(asked, network, references, cells) if pictured else {}
    pictures = _pictures(network, references, cells) if pictured else {}
    cards = _cards(network, references, cells)
    of_cards = card_pictures_spec(network.held_out, list(cards.values())) if pictured and cards else None
    inputs = network.name, network.seed, network.learn, network.held_out
    return Interpreted(*inputs, references, cells, galleries, pictures, cards, of_cards)


def _cells(asked: Interpretation, network: _Network, interpreter: str, reference: StageSpec) -> Iterator[Cell]:
    """Yield every selector, own and then of other networks, each repeat and budget, by rising budget.

    A selector that does not read features chooses the same for every network: it has no coresets of other networks.
    """
    seed, method, own = network.seed, METHODS[interpreter], asked.interpreters[interpreter]
    for (selector, settings), (sender, activations) in product(asked.selectors.items(), network.selects.items()):
        parameters, foreign = {k: v for k, v in settings.items() if k != "repeats"}, sender != network.name
        if foreign and selector in BLIND:
            continue
        title = f"{selector} from {sender}" if foreign else selector
        smaller: dict[int, StageSpec] = {}  # by repeat: features at the budget before
        for repeat, budget in product(range(settings.get("repeats", 1)), sorted(asked.budgets)):
            if budget == 1.0 and (repeat or foreign):
                continue  # at budget 1 all draws are the same, of any network
            selection = selection_spec(activations, selector, parameters, budget, seed, repeat)
            found = method.plan(network.learn, selection, own, seed)
            if method.grow and repeat in smaller and budget < 1.0:  # the full data is that of all selectors
                found = method.grow(found, smaller[repeat])
            smaller[repeat] = found
            compared = (method.evaluate or evaluation_spec)(found, reference, network.held_out)
            scores = method.scores(found, network.held_out, own) if method.scores and not repeat else None
            stages = selection, found, compared, scores
            yield Cell(network.name, seed, interpreter, title, sender, repeat, budget, *stages)


def _cards(network: _Network, references: Mapping[str, StageSpec], cells: Sequence[Cell]) -> dict[str, StageSpec]:
    """Return the cards of the full data's features and of each first draw's, by path of the features.

    Their images are held out: so the stages do not depend on `report.training_images`.
    """
    found = {}
    for features in (*references.values(), *(cell.features for cell in cells if not cell.repeat)):
        method = method_of(features)
        if method.cards is not None or method.directed is not None:
            found[features.path] = (method.cards or cards_spec)(features, network.held_out)
    return found


def _galleries(
    asked: Interpretation, network: _Network, references: Mapping[str, StageSpec], cells: Sequence[Cell]
) -> dict[str, StageSpec]:
    """Return a gallery per interpreter: the full data next to the smallest budget of each selector."""
    found = {}
    for interpreter, reference in references.items():
        columns = {"full data": reference}
        for selector in asked.selectors:  # cells are sorted by rising budget, so the first has the smallest
            cell = next(c for c in cells if (c.interpreter, c.selector) == (interpreter, selector))
            columns[f"{selector} {100 * cell.budget:g} %"] = cell.features
        found[f"{network.name}, {interpreter}"] = gallery_spec(network.held_out, columns, asked.gallery)
    return found


def _pictures(network: _Network, references: Mapping[str, StageSpec], cells: Sequence[Cell]) -> dict[str, StageSpec]:
    """Return the pictures of what only coresets show: of first draws, small budgets first."""
    found = {}
    for name, reference in references.items():
        ours = [cell for cell in cells if cell.interpreter == name and not cell.repeat and cell.budget < 1]
        draw = METHODS[name].pictures
        if draw is not None and ours:
            ranked = sorted(ours, key=lambda cell: cell.budget)
            coresets = {f"{cell.selector} {100 * cell.budget:g} %": cell.features for cell in ranked}
            found[name] = draw(coresets, reference, network.held_out)
    return found
