"""The plan of a run: stages and keys from a config, without Prefect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from configs.load import ConfigError
from configs.schema import Config
from storage.specs import StageSpec
from tasks.steps.plan import Shared, plan_shared, with_inputs
from tasks.steps.questions import JOINS, QUESTIONS
from tasks.steps.report import Made


@dataclass(frozen=True)
class Plan:
    """All stages of a run.

    Attributes
    ----------
    shared : data sets, trainings and their snapshots
    answers : by question, one answer for each network and seed; its `finals` are the stages that it needs
    """

    config: Config
    shared: Shared
    answers: Mapping[str, Sequence[Any]]  # Any: answers of the question's own class

    @cached_property
    def base(self) -> tuple[StageSpec, ...]:
        """The stages that all questions share: data sets, trainings, snapshots."""
        return with_inputs(self.shared.finals)

    @cached_property
    def stages(self) -> tuple[StageSpec, ...]:
        """Every stage once, inputs before the stages that read them."""
        return with_inputs([*self.base, *(spec for name in self.answers for spec in self.of(name))])

    def of(self, question: str) -> tuple[StageSpec, ...]:
        """Return the stages of a question, with all that they read."""
        return with_inputs(spec for answer in self.answers[question] for spec in answer.finals)

    def made(self) -> Made:
        """Return the inputs of the report."""
        return Made(self.config, self.stages, self.shared.trainings, self.answers)


def make_plan(config: Config) -> Plan:
    """Return the stages of a run: specs and keys only, without a look into a store.

    Raises
    ------
    ConfigError : an unknown method or parameter, a missing file
    """
    try:
        shared = plan_shared(config)
        answers = {name: QUESTIONS[name].plan(config, shared) for name in QUESTIONS if name in config.asked}
        joined = joined_answers(config, shared, answers)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    return Plan(config, shared, joined)


def joined_answers(
    config: Config, shared: Shared, answers: Mapping[str, Sequence[Any]]
) -> Mapping[str, Sequence[Any]]:  # Any: as in a plan
    """Return the answers of all questions, with what several of them give together.

    Raises
    ------
    ValueError : as for the questions
    """
    for join in JOINS.values():
        answers = join.plan(config, shared, answers)
    return answers
