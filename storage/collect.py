"""Garbage: stages that no run refers to."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from storage.claims import StageHeldError, claim, claim_name
from storage.runs import referenced
from storage.stores import Store
from storage.updates.archives import find_archives
from storage.verify import stage_paths


@dataclass(frozen=True)
class Garbage:
    """A stage that no run refers to, its size, and why it is kept all the same (empty: it may go)."""

    path: str
    size: int
    kept: str


def find_garbage(store: Store, grace_hours: float) -> Iterator[Garbage]:
    """Yield the stages that no run record refers to; young ones and claimed ones are kept.

    Archives of a recorder are no garbage: no run makes them, and none could make them again.

    Parameters
    ----------
    grace_hours : age below which nothing is removed, since a run may be about to refer to it
    """
    wanted = {*referenced(store), *find_archives(store)}
    for path in stage_paths(store):
        if path in wanted:
            continue
        age = (time.time() - store.modified(path)) / 3600
        kept = f"written {age:.1f} h ago" if age < grace_hours else ""
        try:
            with claim(store, path, "gc", wait=False):
                pass
        except StageHeldError as error:
            kept = str(error)
        yield Garbage(path, sum(store.files(path).values()), kept)


def remove_stage(store: Store, path: str) -> None:
    """Remove a stage under its claim: completion note, markers, data, so that a broken removal looks unmade."""
    with claim(store, path, "gc", wait=False):
        if path in referenced(store):
            return  # a run that has begun since the listing wants it
        store.remove(f"{path}/markers/complete.json")
        store.remove(f"{path}/markers")
        store.remove(path)
        store.remove(f"{claim_name(path)}.lock")
