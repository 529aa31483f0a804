"""Garbage: stages that no run refers to, and clock probes that killed processes left among the claims."""

from collections.abc import Iterator
from dataclasses import dataclass

from storage.claims import CLAIMS, StageHeldError, claim, claim_name, find_probes, store_time
from storage.runs import referenced
from storage.stores import Store
from storage.updates.archives import find_archives, find_conversions
from storage.verify import stage_paths

PROBE_HOURS = 1.0  # age at which a clock probe is not in use any more


@dataclass(frozen=True)
class Garbage:
    """A path that no run refers to, its size, and the reason to keep it ("": it may be removed)."""

    path: str
    size: int
    kept: str


def find_garbage(store: Store, grace_hours: float) -> Iterator[Garbage]:
    """Yield the stages that no run record refers to, then old clock probes. Young and claimed stages are kept.

    Archives of a recorder are not garbage: no run makes them, and no run could make them again. Nor are conversions of
    an archive that is kept.

    Parameters
    ----------
    grace_hours : age below which nothing is removed, since a run may be about to refer to it
    """
    wanted = {*referenced(store), *find_archives(store)}
    wanted |= {stage.path for archive, made in find_conversions(store).items() if archive in wanted for stage in made}
    unwanted = [path for path in stage_paths(store) if path not in wanted]
    probes = find_probes(store)
    now = store_time(store) if unwanted or probes else 0.0  # not by our clock, which may be hours off
    for path in unwanted:
        age = (now - store.modified(path)) / 3600
        kept = "" if age >= grace_hours else f"written {age:.1f} h ago"
        kept = "written in the future, by the store's clock" if age < -1 / 60 else kept
        try:
            with claim(store, path, "gc", wait=False):
                pass
        except StageHeldError as error:
            kept = str(error)
        yield Garbage(path, sum(store.files(path).values()), kept)
    for path in probes:
        if 0.0 < store.modified(path) <= now - 3600 * PROBE_HOURS:  # 0: it is not complete yet, or already removed
            yield Garbage(path, sum(store.files(path).values()), "")


def remove_garbage(store: Store, path: str) -> None:
    """Remove a stage or probe that `find_garbage` found."""
    if path.startswith(f"{CLAIMS}/"):
        store.remove(path)
    else:
        remove_stage(store, path)


def remove_stage(store: Store, path: str) -> None:
    """Remove a stage under its claim: completion record, partition records, data. A broken removal looks unmade."""
    with claim(store, path, "gc", wait=False):
        if path in referenced(store):
            return  # a run that has begun since the listing wants it
        store.remove(f"{path}/markers/complete.json")
        store.remove(f"{path}/markers")
        store.remove(path)
        store.remove(f"{claim_name(path)}.lock")
