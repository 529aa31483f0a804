"""A lottery whose process is killed at random moments equals the unbroken one, to the byte."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.forked import forked
from tests.tasks.steps.common.test_lottery_stages import SGD, files, lottery, make

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
KILLS = 4
KINDS: list[Tree] = [
    {"optimizer": SGD},
    {"optimizer": {"kind": "sam", "lr": 0.05}, "record": {}},
    {"optimizer": {"kind": "adam"}, "lottery": {"stages": 3, "fraction": 0.3, "rewind": 0}},
]

pytestmark = pytest.mark.slow


def make_all(tree: Tree) -> None:
    """Make all stages of a config's lottery, in this process."""
    from tests.conftest import Run

    make(Run.of(tree))


def count(store: str) -> int:
    """Return the number of files in a store, which is the clock of the kills."""
    return sum(len(names) for _, _, names in os.walk(store))


@pytest.mark.parametrize("settings", KINDS)
def test_a_lottery_killed_at_random_moments_gives_the_same_bytes(
    tiny_tree: Tree, new_run: Callable[[Tree], "Run"], tmp_path: Path, settings: Tree
) -> None:
    tree = lottery(tiny_tree, **settings)
    whole = new_run({**tree, "store": str(tmp_path / "whole")})
    make(whole)
    dice, killed = random.Random(str(settings)), []
    for moment in sorted(dice.sample(range(1, count(whole.config.store) - 5), KILLS)):
        with forked(make_all, tree) as process:
            while process.is_alive() and count(tree["store"]) < moment:
                time.sleep(0.001)
            time.sleep(0.05 * dice.random())  # in the middle of a step, or of a write
            process.kill()
        killed.append(process.exitcode)
    assert -signal.SIGKILL in killed
    run = new_run(tree)
    make(run)
    found, expected = files(run), files(whole)
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found)
