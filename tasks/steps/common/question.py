"""What a question is: one object that lists its stage kinds, plans its stages and makes its page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from configs.schema import Config
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.step import Step
from tasks.report.pages import Page


class Answer(Protocol):
    """What a question finds for one network and seed: its last stages, whose inputs come by themselves."""

    @property
    def network(self) -> str:
        """Name of the network in the config."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def finals(self) -> Sequence[StageSpec]:
        """The stages that no other stage of the answer reads."""
        ...


@dataclass(frozen=True)
class Shared:
    """The stages that all questions build on.

    Attributes
    ----------
    manifests : by name of the data set
    trainings : by network and seed
    snapshots : of the trainings, in order
    """

    manifests: Mapping[str, StageSpec]
    trainings: Mapping[tuple[str, int], StageSpec]
    snapshots: Sequence[StageSpec]

    @property
    def finals(self) -> Sequence[StageSpec]:
        """All of them."""
        return (*self.manifests.values(), *self.trainings.values(), *self.snapshots)


@dataclass(frozen=True)
class Question:
    """A question of a run.

    Attributes
    ----------
    name : of its section in the config, of its flow and of its page
    text : the question itself, as people ask it
    steps : the kinds of stages that it brings
    plan : its answers for a config that asks it: specs only, no store is asked
    page : its page of the report from finished stages; the last argument is `report.training_images`. None: no page
    """

    name: str
    text: str
    steps: tuple[Step, ...]
    plan: Callable[[Config, Shared], Sequence[Any]]  # Any: answers of the question's own class, which is an Answer
    page: Callable[[Store, Sequence[Any], str], Page] | None
