"""The identity of a stage: kind, VERSION, parameters, the stages it reads, and digests of files outside the store."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from storage.documents import Document, Json, canonical, digest

KEY_LENGTH = 20
KIND, KEY = re.compile(r"[a-z]+(-[a-z]+)*"), re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")  # the parts of a stage's path


@dataclass(frozen=True, eq=False)
class StageSpec:
    """A stage before or after it has run; specs are equal where their keys are.

    Parameters
    ----------
    stage : kind of stage, the folder below the store
    version : raised whenever the same parameters give other results
    parameters : settings on which the result depends, JSON; values equal to their default are left out
    inputs : the stages it reads, by role
    digests : of weights, single data files and the user's code
    place : settings and paths for the work, which are not part of the key
    label : name of the stage for people
    """

    stage: str
    version: int
    parameters: Mapping[str, Json] = field(default_factory=dict)
    inputs: Mapping[str, "StageSpec"] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    place: Mapping[str, Json] = field(default_factory=dict)
    label: str = ""

    @cached_property
    def identity(self) -> Document:
        """All that the key is made of; stored as the stage's attributes and compared on claim."""
        return {
            "stage": self.stage,
            "version": self.version,
            "parameters": dict(self.parameters),
            "inputs": {role: spec.key for role, spec in self.inputs.items()},
            "digests": dict(self.digests),
        }

    @cached_property
    def key(self) -> str:
        """The hash of `identity`, 80 bits in hex."""
        return digest(canonical(self.identity))[:KEY_LENGTH]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StageSpec) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def path(self) -> str:
        """The stage's folder, relative to the store."""
        return f"{self.stage}/{self.key}"

    @property
    def title(self) -> str:
        """The name of a stage in messages: kind, label and short key."""
        return f"{self.stage} {self.label} [{self.key[:8]}]".replace("  ", " ")


def without_defaults(parameters: Mapping[str, Json], defaults: Mapping[str, Json]) -> Document:
    """Return parameters without those that equal their default, so that a new option keeps old keys."""
    return {k: v for k, v in parameters.items() if k not in defaults or canonical(v) != canonical(defaults[k])}


def signature_defaults(function: Callable[..., object]) -> Document:
    """Return the default of every parameter of `function` that has one."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
