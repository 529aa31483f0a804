"""Changes that make a config malformed: odd values, keys in other places, parts left out."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Tree = dict[str, Any]  # Any: YAML
Path_ = tuple[str | int, ...]

NUMBERS = [0, 1, 2, 7, -1, 10**6, 10**12, 2**31, 2**63 - 1, 2**63, 10**30, 0.5, 1.5, 1e-300, 5e-324, 1e300]
UNREAL = [float("nan"), float("inf"), -float("inf"), -0.0]
TEXTS = [
    *("", "\0", "\n", "a\u2028b", "\x1b[31mred", "\x9b2J", "é" * 70, "💥", "\u202egnp.exe", "{}", "~", "1e5", "on"),
    *("../../x", "/", "~nobody_has_this_name/x", "s3://key:secret@bucket/x", "${HOME}", "<script>", "a.b", "x" * 5000),
    *("all", "ids", "none", "permute", "displacement", "adam", "sam", "step", "single-example", "prediction", "mlp"),
    *("cifar-resnet20", "cifar-vgg16", "squeezenet1_0", "json:loads", "tasks:", "0B", "1kB", "9TB", "dask:Client"),
    *("ResNet18_Weights.IMAGENET1K_V1", "serial", "threads", "address"),
]
LEAVES = st.none() | st.booleans() | st.sampled_from([*NUMBERS, *UNREAL, *TEXTS]) | st.text(max_size=6)
KEYS = st.text(max_size=5) | st.sampled_from(["kind", "size", "", *TEXTS]) | st.integers(-1, 3)
VALUES = st.recursive(
    LEAVES, lambda value: st.lists(value, max_size=3) | st.dictionaries(KEYS, value, max_size=3), max_leaves=6
)


def mutate(data: st.DataObject, tree: Tree) -> None:
    """Change one or two things in a tree, in place."""
    for _ in range(data.draw(st.integers(1, 2))):
        everywhere = places(tree)
        if not everywhere:
            return
        *parents, last = data.draw(st.sampled_from(everywhere))
        below: Any = tree  # Any: walked by key
        for key in parents:
            below = below[key]
        old, operation = below[last], data.draw(st.sampled_from(["near", "near", "near", "set", "add", "remove"]))
        if operation == "remove":
            del below[last]
        elif operation == "add" and isinstance(old, dict):
            old[data.draw(KEYS)] = data.draw(VALUES)
        elif operation == "near" and old is not None:
            below[last] = copy.deepcopy(data.draw(near(old, sorted(set(words(tree))))))
        else:
            below[last] = data.draw(VALUES)


def near(old: Any, known: list[str]) -> st.SearchStrategy[Any]:  # Any: YAML
    """Return values of the same kind as one that is valid."""
    if isinstance(old, bool):
        return st.just(not old)
    if isinstance(old, int | float):
        return st.sampled_from([*NUMBERS, -old, old * 1000, old / 3, str(old), [old]])
    if isinstance(old, str):
        return st.sampled_from([*known, *TEXTS, [old], {"kind": old}])
    if isinstance(old, list):
        return st.sampled_from([[], old[:1], old + old, old[::-1], [old], [0], [2**63], [5e-324], ["x"], old[0:1] * 3])
    return st.sampled_from([{}, None, dict(list(old.items())[:1]), dict.fromkeys(old), {k: {} for k in old}])


def places(tree: Any, place: Path_ = ()) -> list[Path_]:  # Any: YAML
    """Return the place of every key and item of a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    below = [deeper for key, part in items for deeper in places(part, (*place, key))]
    return [place, *below] if place else below


def words(tree: Any) -> Iterator[str]:  # Any: YAML
    """Yield the keys and texts of a tree: what may stand elsewhere by mistake."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, part in items:
        yield str(key)
        yield from words(part)
    if isinstance(tree, str):
        yield tree
