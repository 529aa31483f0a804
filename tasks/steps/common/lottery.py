"""A lottery of pruned networks (Frankle & Carbin 2019): training, pruning, start, training, ... as one chain of stages.

Every training of the chain has the same settings, data order and number of steps. The first is the plain training of
the network. It is shared with a network that has the same settings without a lottery.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from configs.schema import Network
from storage.specs import StageSpec
from tasks.steps.common.pruning import pruning_spec
from tasks.steps.common.snapshots import snapshot_specs
from tasks.steps.common.tickets import ticket_spec
from tasks.steps.common.training import training_spec


@dataclass(frozen=True)
class Link:
    """A training of a chain.

    Attributes
    ----------
    training : the training
    snapshot : weights of the first training after the step to rewind to
    pruning : the masks that the training keeps; None for the first
    trained : the training whose weights were pruned; for the first, itself
    """

    training: StageSpec
    snapshot: StageSpec
    pruning: StageSpec | None
    trained: StageSpec


def last_training(
    name: str, network: Network, manifest: StageSpec, seed: int, inputs: Mapping[str, StageSpec]
) -> StageSpec:
    """Return the training of a network: its own, or the last of its lottery.

    Parameters
    ----------
    inputs : further stages that each training reads

    Raises
    ------
    ValueError : as for `training_spec`
    """
    assert network.train is not None
    if network.train.lottery is None:
        return training_spec(name, network, manifest, seed, inputs=inputs)
    return _chain(name, network, manifest, seed, inputs)


def links_of(training: StageSpec) -> list[Link]:
    """Return the trainings of a chain, in order, from its last; one link for a training without a lottery."""
    found: list[Link] = []
    while "masks" in training.inputs:
        pruning, ticket = training.inputs["masks"], training.inputs["start"]
        found.append(Link(training, ticket.inputs["snapshot"], pruning, pruning.inputs["training"]))
        training = pruning.inputs["training"]
    snapshot = found[-1].snapshot if found else snapshot_specs(training, (0,))[0]
    return [Link(training, snapshot, None, training), *reversed(found)]


def _chain(name: str, network: Network, manifest: StageSpec, seed: int, inputs: Mapping[str, StageSpec]) -> StageSpec:
    """Return the last training of a lottery; only this one records its updates."""
    assert network.train is not None
    assert network.train.lottery is not None
    asked = network.train.lottery
    quiet = network.model_copy(update={"train": network.train.model_copy(update={"record": None})})
    training = training_spec(name, quiet, manifest, seed, inputs=inputs, stage="dense")
    (snapshot,) = snapshot_specs(training, (asked.rewind,))
    pruning: StageSpec | None = None
    for number in range(1, asked.stages + 1):
        last = number == asked.stages
        pruning = pruning_spec(training, pruning, asked.fraction, rewind=asked.rewind)
        start = {**inputs, "start": ticket_spec(snapshot, pruning), "masks": pruning}
        stage = "" if last else f"stage {number}"
        training = training_spec(name, network if last else quiet, manifest, seed, inputs=start, stage=stage)
    return training
