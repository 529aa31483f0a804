"""State dicts as files have them, and the same with the prefixes undone that wrappers of a network add."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

State = OrderedDict[str, Any]  # Any: tensors, but for the extra state of a module
Versions = Mapping[str, Mapping[str, Any]]  # Any: what a module's class keeps of its format

PREFIXES = ("_orig_mod.", "module.", "model.")  # torch.compile, data-parallel and averaged models, Lightning
WRAPPERS = ("_orig_mod", "module")  # of a single module, in the middle of a name
COUNTERS = {"module.": {"n_averaged"}}  # beside the prefix, in torch's AveragedModel
MOST_PREFIXES = 4  # that one file may have


@dataclass(frozen=True)
class Reading:
    """A state dict with what was undone to find it.

    Parameters
    ----------
    state : tensors by name; its attribute `_metadata`, where it has one, as torch writes it
    entry : keys of the file that lead to it, none where the file is the state dict
    prefixes : removed from the names, in this order
    """

    state: State
    entry: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @property
    def undone(self) -> str:
        """What was undone, in words; empty where nothing was."""
        parts = [f"entry {'.'.join(self.entry)!r}"] if self.entry else []
        parts += [f"names without {', '.join(map(repr, self.prefixes))}"] if self.prefixes else []
        return " and ".join(parts)


def state_of(tensors: Mapping[str, Any], versions: Versions | None) -> State:  # Any: as in State
    """Return a state dict as `load_state_dict` takes it; without versions where they are None."""
    state: State = OrderedDict(tensors)
    if versions is not None:
        state._metadata = OrderedDict(versions)  # type: ignore[attr-defined]  # torch keeps it there
    return state


def versions_of(state: Mapping[str, Any]) -> Versions | None:  # Any: as in State
    """Return what a state dict says of its modules' formats, None where it says nothing."""
    found = getattr(state, "_metadata", None)
    return found if isinstance(found, Mapping) and all(isinstance(entry, Mapping) for entry in found.values()) else None


def unwrapped(given: Reading, paths: Collection[str]) -> Iterator[Reading]:
    """Yield a reading, then the same without the prefixes of tools, those with the fewest removed first.

    Parameters
    ----------
    paths : dotted names of the modules, parameters and buffers of the network that the file is for; a wrapper's name
        in the middle of a key stays where the network has it there
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
    """Return a reading without a prefix that all its names have, None where they do not."""
    counters = COUNTERS.get(prefix, set()) & given.state.keys()
    if len(given.state) == len(counters) or not all(k.startswith(prefix) for k in given.state if k not in counters):
        return None

    def rename(path: str) -> str | None:
        return path.removeprefix(prefix) if path.startswith(prefix) else "" if path == prefix[:-1] else None

    return _renamed(given, rename, prefix)


def _without_wrappers(given: Reading, paths: Collection[str]) -> Reading | None:
    """Return a reading without the wrappers that the network does not have, None where there are none."""
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
    return _renamed(given, rename, *_few(list(dropped)))


def _few(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first two of several prefixes, and how many more there are."""
    return (*names[:2], *([f"... {len(names) - 2} more"] if len(names) > 2 else []))


def _renamed(given: Reading, rename: Callable[[str], str | None], *prefixes: str) -> Reading:
    """Return a reading with other names, for its versions too; those that become None are left out."""
    tensors = {new: value for key, value in given.state.items() if (new := rename(key)) is not None}
    versions = versions_of(given.state)
    if versions is not None:  # a wrapper and what it holds get one path: the inner one, which comes last, counts
        inner_last = sorted(versions.items(), key=lambda item: len(item[0]))
        versions = {new: entry for path, entry in inner_last if (new := rename(path)) is not None}
    return Reading(state_of(tensors, versions), given.entry, (*given.prefixes, *prefixes))
