"""The definition of a question: one object that lists its stage kinds, plans its stages and makes its page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from configs.schema import Config
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.step import Step
from tasks.report.pages import Page

if TYPE_CHECKING:
    from tasks.steps.common.subject import Look


class Answer(Protocol):
    """The answer to a question for one network and seed, given by its last stages."""

    @property
    def network(self) -> str:
        """The name of the network in the config."""
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
    """The stages that all questions share.

    Attributes
    ----------
    manifests : manifests by name of the data set
    trainings : trainings by network and seed
    snapshots : snapshots of the trainings, in order
    """

    manifests: Mapping[str, StageSpec]
    trainings: Mapping[tuple[str, int], StageSpec]
    snapshots: Sequence[StageSpec]

    @property
    def finals(self) -> Sequence[StageSpec]:
        """All shared stages."""
        return (*self.manifests.values(), *self.trainings.values(), *self.snapshots)


@dataclass(frozen=True)
class Question:
    """A question of a run.

    Attributes
    ----------
    name : name of its section in the config, of its flow and of its page
    text : the question itself, as people ask it
    steps : the kinds of stages that it adds
    plan : returns its answers for a config: specs only, without a look into a store
    page : returns its page of the report from finished stages; the last argument is `report.training_images`. None: no
        page
    card : returns what one of its answers says of an image, in a form of the question's own, which
        `tasks/report/cards/results.py` describes; empty where it says nothing. None: no part in cards
    """

    name: str
    text: str
    steps: tuple[Step, ...]
    plan: Callable[[Config, Shared], Sequence[Any]]  # Any: answers of the question's own class, which is an Answer
    page: Callable[[Store, Sequence[Any], str], Page] | None
    card: Callable[["Look", Any], Any] | None = None


@dataclass(frozen=True)
class Join:
    """What the answers of several questions give together.

    Attributes
    ----------
    name : of the join
    questions : names of the questions
    steps : the kinds of stages that it adds
    plan : takes the answers of all questions of a config by question, and returns them with the stages of the join; it
        may also add why there are none
    """

    name: str
    questions: tuple[str, ...]
    steps: tuple[Step, ...]
    plan: Callable[[Config, Shared, Mapping[str, Sequence[Any]]], Mapping[str, Sequence[Any]]]  # Any: as above
