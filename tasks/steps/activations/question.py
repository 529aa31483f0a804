"""Activations of named layers that a config keeps for the user's analysis, as a question without a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from configs.schema import Config
from storage.specs import StageSpec
from tasks.steps.common.layers import LAYERS, layers_spec
from tasks.steps.common.question import Question, Shared


@dataclass(frozen=True)
class Kept:
    """The kept activations of one network and seed, a stage for each split."""

    network: str
    seed: int
    finals: Sequence[StageSpec]


def plan_activations(config: Config, shared: Shared) -> Sequence[Kept]:
    """Return the activations of each network and seed.

    Raises
    ------
    ValueError : weights that cannot be read
    """
    asked = config.activations
    assert asked is not None
    settings, found = asked.model_dump(mode="json", include={"layers", "layout", "keep", "dtype"}), []
    for name, seed in product(asked.networks, config.seeds):
        manifest = shared.manifests[config.data_of(name, "activations")]
        network, training = config.networks[name], shared.trainings.get((name, seed))
        stages = [layers_spec(name, network, manifest, training, settings, split) for split in asked.splits]
        found.append(Kept(name, seed, stages))
    return found


ACTIVATIONS = Question("activations", "What do the named layers put out?", (LAYERS,), plan_activations, None)
