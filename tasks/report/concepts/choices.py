"""Several choices that together select one view: network, seed, detector, layer, snapshot."""

from dataclasses import dataclass

from tasks.report.blocks import script_json

Key = tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """One of the choices: its index among the names, its name, and its options in order."""

    index: int
    name: str
    options: tuple[str, ...]
    slides: bool


@dataclass(frozen=True)
class Chooser:
    """What selects a view of the figures and panels of a group.

    Attributes
    ----------
    id : prefix of the ids of its fields
    names : such as "network", "detector"
    keys : of each view, an option per name
    slides : the name whose options a slider goes through, "" none
    start : the view that is shown first
    """

    id: str
    names: tuple[str, ...]
    keys: tuple[Key, ...]
    slides: str = ""
    start: int = 0

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The names with more than one option."""
        columns = [tuple(dict.fromkeys(key[i] for key in self.keys)) for i in range(len(self.names))]
        return tuple(
            Choice(i, name, options, name == self.slides)
            for i, (name, options) in enumerate(zip(self.names, columns, strict=True))
            if len(options) > 1
        )

    @property
    def json(self) -> str:
        """Names and keys as JSON for the page's script."""
        return script_json({"names": self.names, "keys": self.keys, "start": self.start})
