"""Garbage: stages that no run refers to, and what killed processes left beside the claims."""

from collections.abc import Iterator
from dataclasses import dataclass

from storage.claims import CLAIMS, StageHeldError, claim, claim_name, find_probes, store_time
from storage.runs import referenced
from storage.stores import Store
from storage.updates.archives import find_archives
from storage.verify import stage_paths

PROBE_HOURS = 1.0  # age at which nobody looks any more at the clock that a probe was written for


@dataclass(frozen=True)
class Garbage:
    """What no run refers to, its size, and why it is kept all the same (empty: it may go)."""

    path: str
    size: int
    kept: str


def find_garbage(store: Store, grace_hours: float) -> Iterator[Garbage]:
    """Yield the stages that no run record refers to; young ones and claimed ones are kept. Then old probes.

    Archives of a recorder are no garbage: no run makes them, and none could make them again.

    Parameters
    ----------
    grace_hours : age below which nothing is removed, since a run may be about to refer to it
    """
    wanted = {*referenced(store), *find_archives(store)}
    unwanted = [path for path in stage_paths(store) if path not in wanted]
    probes = find_probes(store)
    now = store_time(store) if unwanted or probes else 0.0  # not by our clock, which may be hours off
    for path in unwanted:
        age = (now - store.modified(path)) / 3600
        kept = f"written {age:.1f} h ago" if age < grace_hours else ""
        kept = "written in the future, by the store's clock" if age < -1 / 60 else kept
        try:
            with claim(store, path, "gc", wait=False):
                pass
        except StageHeldError as error:
            kept = str(error)
        yield Garbage(path, sum(store.files(path).values()), kept)
    for path in probes:
        if 0.0 < store.modified(path) <= now - 3600 * PROBE_HOURS:  # 0: it is being made, or gone already
            yield Garbage(path, sum(store.files(path).values()), "")


def remove_garbage(store: Store, path: str) -> None:
    """Remove what `find_garbage` found."""
    if path.startswith(f"{CLAIMS}/"):
        store.remove(path)
    else:
        remove_stage(store, path)


def remove_stage(store: Store, path: str) -> None:
    """Remove a stage under its claim: completion note, markers, data, so that a broken removal looks unmade."""
    with claim(store, path, "gc", wait=False):
        if path in referenced(store):
            return  # a run that has begun since the listing wants it
        store.remove(f"{path}/markers/complete.json")
        store.remove(f"{path}/markers")
        store.remove(path)
        store.remove(f"{claim_name(path)}.lock")
