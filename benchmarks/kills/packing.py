"""Kills while a stage's partition records are packed: this takes so long, in small packs, that moments fall into it."""

import os
import re
import time
from collections.abc import Callable, Mapping
from unittest import mock

from storage.stores import Store
from storage.verify import stage_paths

RECORDS = 24  # in a pack: several packs of a small stage
PAUSES = 7  # while a stage of three packs is sealed: before them, in the middle of each and after it
PACK = re.compile(r"/markers/partitions-\d+\.json$")


def slow_packing(seconds: float, sign: Callable[[], None]) -> None:
    """Let this process pack slowly: wait before the packs, in the middle of each on a local disk, and after them.

    Parameters
    ----------
    sign : called when it begins to pack
    """
    for module in ("storage.packs", "storage.stages"):
        mock.patch(f"{module}.RECORDS", RECORDS).start()
    write_all, fsync = Store.write_all, os.fsync

    def halfway(descriptor: int) -> None:
        time.sleep(seconds)
        fsync(descriptor)

    def slowly(store: Store, objects: Mapping[str, bytes]) -> None:
        if not any(PACK.search(path) for path in objects):
            write_all(store, objects)
            return
        sign()
        time.sleep(seconds)
        for path, data in objects.items():  # on S3 too: packs of which some are there
            with mock.patch("os.fsync", halfway):
                write_all(store, {path: data})
            time.sleep(seconds)

    mock.patch.object(Store, "write_all", slowly).start()


def is_packing(store: Store) -> bool:
    """Say whether a stage of a store has packed records, or a part of them, and is not complete."""
    return any(
        any("partitions-" in name for name in found) and "complete.json" not in found
        for found in (store.files(f"{path}/markers") for path in stage_paths(store))
    )
