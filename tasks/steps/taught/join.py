"""The join of questions 3 and 4: for each network that both ask about, who taught its neurons their concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from configs.concepts import Concepts
from configs.schema import Config
from storage.specs import StageSpec
from tasks.steps.common.question import Join, Shared
from tasks.steps.concepts.plan import Monitored
from tasks.steps.taught.projected import LINE, NEURON_CONTRIBUTIONS, neuron_contributions_spec
from tasks.steps.taught.teachers import NEURON_TEACHERS, neuron_teachers_spec

Answers = Mapping[str, Sequence[Any]]  # Any: answers of each question's own class


def join_teachers(config: Config, shared: Shared, answers: Answers) -> Answers:
    """Return the answers, those of question 3 with what taught its neurons, or with why that is not known.

    Raises
    ------
    ValueError : `concepts.teachers.layers` names a layer of a network that cannot be traced; names the key
    """
    asked = config.concepts
    if asked is None or "concepts" not in answers or asked.teachers is None:
        return answers
    _check_layers(config, asked)
    return {**answers, "concepts": [_joined(config, shared, answer) for answer in answers["concepts"]]}


def _check_layers(config: Config, asked: Concepts) -> None:
    """Raise ValueError where layers are named and a network of question 3 does not have question 4."""
    assert asked.teachers is not None
    if asked.teachers.layers is None:
        return
    for name in asked.networks:
        if (why := _why_not(config, name)) and set(asked.teachers.layers) & set(asked.layers_of(name)):
            raise ValueError(f"{LINE}.layers: expected updates of networks.{name}, found none. {why}")


def _joined(config: Config, shared: Shared, answer: Monitored) -> Monitored:
    """Return the answer of question 3 for a network and seed with the stages of its teachers."""
    asked = config.concepts
    assert asked is not None
    assert asked.teachers is not None
    if why := _why_not(config, answer.network):
        return replace(answer, untaught=why)
    training = shared.trainings[answer.network, answer.seed]
    return replace(
        answer,
        taught=tuple(
            _taught(answer, training, layer, config)
            for layer in answer.responses[-1]
            if asked.teachers.layers is None or layer in asked.teachers.layers
        ),
    )


def _taught(answer: Monitored, training: StageSpec, layer: str, config: Config) -> StageSpec:
    """Return the stage of what taught the neurons of a layer."""
    asked, traced = config.concepts, config.tracing
    assert asked is not None
    assert asked.teachers is not None
    assert traced is not None
    contributions = neuron_contributions_spec(answer, training, layer, asked.teachers, traced)
    return neuron_teachers_spec(answer, contributions, asked.teachers, traced)


def _why_not(config: Config, name: str) -> str:
    """Say why question 4 cannot answer for the neurons of a network, "" where it can."""
    asked, network = config.concepts, config.networks[name]
    assert asked is not None
    if name in asked.checkpoints:
        return "Its neurons are those of a folder of checkpoints, and question 4 needs the updates of a training."
    if config.tracing is not None and name in config.tracing.networks:
        return ""
    record = ""
    if network.train is None and network.updates is None:
        record = f" Its weights are given: use `networks.{name}.train`, or `updates` of a training elsewhere."
    elif network.train is not None and network.train.record is None:
        record = f" Add `record: {{kind: auto}}` to `networks.{name}.train`."
    names = [*(config.tracing.networks if config.tracing else ()), name]
    return f"Question 4 is not asked of it. Add `tracing: {{networks: [{', '.join(names)}]}}` to the config.{record}"


TEACHERS = Join("neuron-teachers", ("concepts", "tracing"), (NEURON_CONTRIBUTIONS, NEURON_TEACHERS), join_teachers)
