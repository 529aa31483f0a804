"""A disk that fills: a store on a small tmpfs, which then gets room.

`python -m benchmarks.kills --target disk` does the same with whole commands, at random moments.
"""

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.kills.disks import may_mount, mount
from benchmarks.kills.stores import differences, digests, left_over, torn
from storage.stores import Store
from tasks.cluster.parallel import PartitionError

if TYPE_CHECKING:
    from tests.conftest import Run

pytestmark = pytest.mark.slow

Tree = dict[str, Any]  # Any: YAML


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without room for anything."""
    if not may_mount():
        pytest.skip("needs the right to mount a tmpfs: root, or `unshare --map-root-user --mount`")
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=4k", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_stops_where_the_disk_is_full_and_goes_on_with_room(
    disk: Path, finished_run: "Run", new_run: Callable[[Tree], "Run"]
) -> None:
    store = Store(str(disk / "store"))
    whole = sum(finished_run.job.store.files("").values())
    stopped = []
    for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        mount("-o", f"remount,size={4096 + int(share * whole)}", str(disk))
        with pytest.raises((OSError, PartitionError)) as caught:
            new_run({**finished_run.tree, "store": store.url}).finish()
        error = caught.value if isinstance(caught.value, OSError) else caught.value.__cause__
        assert isinstance(error, OSError)
        assert error.errno == errno.ENOSPC
        messages = f"{error.filename or ''} {caught.value}"
        assert store.root in messages or " of " in messages, messages  # a file, or the partition of a stage
        assert list(torn(store)) == []
        stopped.append(len([name for name in store.files("") if name.endswith("complete.json")]))
    assert len(set(stopped)) > 2, stopped  # it fell into several stages
    mount("-o", "remount,size=200m", str(disk))
    new_run({**finished_run.tree, "store": store.url}).finish()
    assert [*differences(digests(finished_run.job.store), digests(store)), *left_over(store)] == []
