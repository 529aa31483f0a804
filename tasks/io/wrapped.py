"""State dicts of files, with and without the prefixes that wrappers of a network add."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

State = OrderedDict[str, Any]  # Any: tensors, except for the extra state of a module
Versions = Mapping[str, Mapping[str, Any]]  # Any: facts of a module's class about its format

PREFIXES = ("_orig_mod.", "module.", "model.")  # torch.compile, data-parallel and averaged models, Lightning
WRAPPERS = ("_orig_mod", "module")  # of a single module, in the middle of a name
COUNTERS = {"module.": {"n_averaged"}}  # keys next to those with the prefix, in torch's AveragedModel
MOST_PREFIXES = 4  # largest number of prefixes in one file


@dataclass(frozen=True)
class Reading:
    """A state dict, with the changes that found it in a file.

    Parameters
    ----------
    state : tensors by name; its attribute `_metadata`, if any, is as torch writes it
    entry : keys of the file that lead to it; empty if the file is the state dict
    prefixes : prefixes that were removed from the names, in this order
    """

    state: State
    entry: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @property
    def undone(self) -> str:
        """Return the changes in words; empty without changes."""
        parts = [f"entry {'.'.join(self.entry)!r}"] if self.entry else []
        parts += [f"names without {', '.join(map(repr, self.prefixes))}"] if self.prefixes else []
        return " and ".join(parts)


def state_of(tensors: Mapping[str, Any], versions: Versions | None) -> State:  # Any: as in State
    """Return a state dict for `load_state_dict`; without versions if they are None."""
    state: State = OrderedDict(tensors)
    if versions is not None:
        state._metadata = OrderedDict(versions)  # type: ignore[attr-defined]  # torch keeps it there
    return state


def versions_of(state: Mapping[str, Any]) -> Versions | None:  # Any: as in State
    """Return the versions of the modules in a state dict, None if it does not have them."""
    found = getattr(state, "_metadata", None)
    return found if isinstance(found, Mapping) and all(isinstance(entry, Mapping) for entry in found.values()) else None


def unwrapped(given: Reading, paths: Collection[str]) -> Iterator[Reading]:
    """Yield a reading, then readings without the prefixes of tools, those with the fewest removed first.

    Parameters
    ----------
    paths : dotted names of the network's modules, parameters and buffers; a wrapper's name inside a key stays where
        the network has it
    """
    layer, seen = [given], set()
    for _ in range(MOST_PREFIXES + 1):
        following = []
        for reading in layer:
            if (names := frozenset(reading.state)) in seen:
                continue
            seen.add(names)
            yield reading
            following += [found for prefix in PREFIXES if (found := _without_prefix(reading, prefix)) is not None]
            if (found := _without_wrappers(reading, paths)) is not None:
                following.append(found)
        layer = following


def _without_prefix(given: Reading, prefix: str) -> Reading | None:
    """Return a reading without a prefix of all its names, None if not all have it."""
    counters = COUNTERS.get(prefix, set()) & given.state.keys()
    if len(given.state) == len(counters) or not all(k.startswith(prefix) for k in given.state if k not in counters):
        return None

    def rename(path: str) -> str | None:
        return path.removeprefix(prefix) if path.startswith(prefix) else "" if path == prefix[:-1] else None

    return _renamed(given, rename, prefix)


def _without_wrappers(given: Reading, paths: Collection[str]) -> Reading | None:
    """Return a reading without the wrappers that the network does not have, None without such wrappers."""
    dropped: dict[str, None] = {}

    def rename(path: str) -> str:
        kept: list[str] = []
        for part in path.split("."):
            if part in WRAPPERS and ".".join([*kept, part]) not in paths:
                dropped[".".join([*kept, part, ""])] = None
            else:
                kept.append(part)
        return ".".join(kept)

    names = [rename(name) for name in given.state]
    if not dropped or len(set(names)) < len(names):
        return None
    return _renamed(given, rename, *_first_two(list(dropped)))


def _first_two(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first two of several prefixes, and the number of others."""
    return (*names[:2], *([f"... {len(names) - 2} more"] if len(names) > 2 else []))


def _renamed(given: Reading, rename: Callable[[str], str | None], *prefixes: str) -> Reading:
    """Return a reading with other names, also in its versions; names that become None are left out."""
    tensors = {new: value for key, value in given.state.items() if (new := rename(key)) is not None}
    versions = versions_of(given.state)
    if versions is not None:  # a wrapper and its module get one path: the inner one, which is last, counts
        inner_last = sorted(versions.items(), key=lambda item: len(item[0]))
        versions = {new: entry for path, entry in inner_last if (new := rename(path)) is not None}
    return Reading(state_of(tensors, versions), given.entry, (*given.prefixes, *prefixes))
