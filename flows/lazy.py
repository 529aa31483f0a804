"""Values by name that are read when they are asked for, such as the tables of a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Lazy(Mapping[str, Value], Generic[Value]):
    """Values by name, each read when it is asked for.

    Attributes
    ----------
    what : what the values are, for messages
    names : in order
    read : returns the value of a name
    """

    what: str
    names: tuple[str, ...]
    read: Callable[[str], Value] = field(repr=False)

    def __getitem__(self, name: str) -> Value:
        """Return the value of a name."""
        if name not in self.names:
            raise KeyError(f"{self.what} {name!r}: expected one of {', '.join(self.names) or 'none'}")
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.names)

    def _repr_html_(self) -> str:
        """List the names."""
        return f"<p>{len(self)} {escape(self.what)}s</p><ul>{''.join(_items(self.names))}</ul>"


def _items(names: Sequence[str]) -> list[str]:
    """Return names as items of a list, escaped."""
    return [f"<li>{escape(name)}</li>" for name in names]
