"""YAML text to a plain tree of bounded size: mappings, lists, texts, numbers, truth values, nothing.

A few lines of aliases can describe more than any memory holds. A part is therefore counted as often as it is named,
before any object is made.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import yaml

from configs.secrets import INSTEAD, Place, named_secrets, secret_in

MAX_PARTS = 100_000  # keys and values
MAX_DEPTH = 50
MAX_DIGITS = 40  # characters of a number: longer ones take minutes to read, or cannot be printed

Tree = Any  # Any: parsed YAML before validation

_MEANS = "tag:yaml.org,2002:"
_NOT_PLAIN = ("binary", "set", "omap", "pairs")


class TreeError(ValueError):
    """A text is not plain YAML; one line gives position and reason."""


def parse_tree(text: str) -> Tree:
    """Return the tree in a YAML text; a date stays text.

    Raises
    ------
    TreeError : not YAML, a tag, a repeated key, an alias within itself, too many parts
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise TreeError(where + ", ".join(filter(None, (error.context, error.problem)))) from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError, TypeError) as error:
        raise TreeError(f"not YAML: {str(error).splitlines()[0]}") from None


def odd_values(tree: Tree, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield the keys of each value that no config may hold, and its fault."""
    if isinstance(tree, dict):
        for key in tree:
            if not _is_key(key, tree):
                yield (*place, str(key)), f"keys should be strings, found {key!r}"
            yield from odd_values(key, place)
        for key, value in tree.items():
            yield from odd_values(value, (*place, str(key)))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from odd_values(value, (*place, index))
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield place, f"input should be a finite number, found {tree}"
    elif isinstance(tree, str):
        yield from ((place, fault) for fault in _faults(tree))
    if place == ("cluster", "arguments"):
        secrets = named_secrets(tree, place)
        yield from ((where, f"expected no secret, found {name}; {INSTEAD}") for where, name in secrets)


def flags_as_numbers(tree: Tree, found: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield the keys of each value that is true or false (in YAML also yes, no, on and off) where a number is needed.

    Parameters
    ----------
    found : what pydantic makes of the tree; it takes true for 1
    """
    if isinstance(tree, bool | dict) and isinstance(found, tuple) and len(found) == 1:
        (found,) = found  # a key that takes one value for a list of it
    if isinstance(tree, bool):
        if isinstance(found, int | float) and not isinstance(found, bool):
            yield place, f"input should be a number, found {str(tree).lower()}"
    elif isinstance(tree, dict):
        for key, value in tree.items():
            below = found.get(key) if isinstance(found, Mapping) else getattr(found, str(key), None)
            yield from flags_as_numbers(value, below, (*place, str(key)))
    elif isinstance(tree, list) and isinstance(found, list | tuple) and len(tree) == len(found):
        for index, (value, below) in enumerate(zip(tree, found, strict=True)):
            yield from flags_as_numbers(value, below, (*place, index))


def _is_key(key: object, mapping: Mapping[object, object]) -> bool:
    """Say whether a mapping may have a key: a text, or an integer where all keys are integers."""
    return isinstance(key, str) or (type(key) is int and all(type(other) is int for other in mapping))


def _faults(text: str) -> Iterator[str]:
    """Yield what is wrong with a text."""
    if secret := secret_in(text):
        yield f"expected no secret, found {secret}; {INSTEAD}"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        yield "expected characters, found half of a surrogate pair"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses repeated keys, special tags and trees that are too large."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # Any: YAML
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _refusal(f"expected each key once, found {key.value!r} twice", node)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_date(self, node: yaml.ScalarNode) -> str:
        self.construct_yaml_timestamp(node)  # ValueError for a day that does not exist
        return str(node.value)


_Loader.add_constructor(f"{_MEANS}timestamp", _Loader.construct_date)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return parts and depth of a node, with aliases expanded; in `known`, None marks a node in progress."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise _refusal("expected a finite tree, found an alias within its own node", node)
        return measured
    known[id(node)] = None
    kind = node.tag.removeprefix(_MEANS)
    if kind in _NOT_PLAIN:
        raise _refusal(f"expected texts, numbers, truth values, lists and mappings, found !!{kind}", node)
    if isinstance(node, yaml.ScalarNode) and kind in ("int", "float") and len(node.value) > MAX_DIGITS:
        raise _refusal(f"expected a number of at most {MAX_DIGITS} digits, found a longer one", node)
    below = [_measure(part, known) for part in _parts(node)]
    parts, depth = 1 + sum(count for count, _ in below), 1 + max((deep for _, deep in below), default=0)
    if parts > MAX_PARTS:
        raise _refusal(f"expected at most {MAX_PARTS:,} keys and values with aliases expanded, found more", node)
    if depth > MAX_DEPTH:
        raise _refusal(f"expected at most {MAX_DEPTH} nested levels, found more", node)
    known[id(node)] = parts, depth
    return parts, depth


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes directly below one: items, or keys and values."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    """Return an error at the line of a node."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
