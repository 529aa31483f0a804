"""What a store holds after a fault, compared with what it should."""

import re
from collections.abc import Iterator

from storage.claims import StageHeldError, claim
from storage.documents import DamagedError
from storage.stages import find_finished
from storage.stores import FORMAT_FILE, PARTIAL, Store
from storage.verify import stage_paths, verify_stage

ATTEMPT = re.compile(
    r"^(segment-\d+)-[0-9a-f]{8}(?=/)"
)  # a segment of a training's archive has its attempt in its name
Digests = dict[str, dict[str, str]]


def torn(store: Store) -> Iterator[str]:
    """Yield what is damaged in stages that look finished: nothing, whenever writers were killed."""
    if store.exists(FORMAT_FILE):
        for path in stage_paths(store):
            yield from verify_stage(store, path)


def digests(store: Store) -> Digests:
    """Return the digest of every array and file of every stage; empty for a stage that is not complete."""
    found: Digests = {}
    for path in stage_paths(store):
        try:
            stage = find_finished(store, path)
        except DamagedError:
            stage = None
        told = {} if stage is None else {**stage.note["arrays"], **stage.note["files"]}
        found[path] = {ATTEMPT.sub(r"\1", name): stated for name, stated in told.items()}
    return found


def differences(expected: Digests, found: Digests) -> Iterator[str]:
    """Yield a line per stage that is lacking, not complete, too many or holds other bytes."""
    for path in sorted({*expected, *found}):
        if found.get(path) != expected.get(path):
            ours, theirs = expected.get(path, {}), found.get(path, {})
            names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
            yield f"{path}: {len(names)} of {len(ours)} arrays and files differ, such as {names[:3]}"


def left_over(store: Store) -> Iterator[str]:
    """Yield what a finished run should not leave: unfinished files, claims that would block another run."""
    yield from (f"{name}: left unfinished" for name in store.files("") if name.endswith(PARTIAL))
    for path in stage_paths(store):
        try:
            with claim(store, path, "a look", wait=False):
                pass
        except StageHeldError as error:
            yield f"{path}: {error}"
