"""A small config, changes of it, and what a bad one says."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from configs.load import ConfigError, load_config

Tree = dict[str, Any]  # Any: YAML
Write = Callable[[Tree | str | bytes], str]
SMALL: Tree = {
    "name": "small",
    "data": {"digits": {"source": "sklearn-digits"}},
    "networks": {
        "cnn": {
            "model": "small-cnn",
            "train": {"data": "digits", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.1}},
        }
    },
    "interpretation": {
        "networks": ["cnn"],
        "selectors": {"random": {"repeats": 2}},
        "budgets": [0.5, 1.0],
        "interpreters": {"ice": {"components": 3}},
    },
}


def changed(key: str, value: object) -> Tree:
    """Return SMALL with `key.path` set; with `...` as value the key is removed."""
    tree = copy.deepcopy(SMALL)
    *parents, last = key.split(".")
    below = tree
    for parent in parents:
        below = below.setdefault(parent, {})
    if value is ...:
        del below[last]
    else:
        below[last] = value
    return tree


def message(source: str, *overrides: str) -> str:
    """Return what `load_config` says about a bad config, without the file's name, after checking its length."""
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 4, text
    return text.replace(f"{source}: ", "")
