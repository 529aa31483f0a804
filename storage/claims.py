"""Claims keep two runs from doing the same work. Correctness never depends on them.

On a local store a claim is a `flock`. The kernel frees it when its process dies. On S3 a claim is a record that its
holder renews. This is best effort, since not every server has conditional puts: two runs that begin within one request
of each other may both hold a stage. The records of several stages go out together, and one is renewed for all of them.
A claim record is valid for `HEARTBEAT` seconds after its last renewal. S3 gives its age, or a process watches it for
that time: clocks need not agree. It is not valid after the end of its process, where this machine can see that end.
"""

import contextlib
import fcntl
import os
import re
import resource
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.documents import Document
from storage.processes import is_dead, process_identity
from storage.renewal import LEADER, LEADER_TOKEN, RENEWER, Note, decode_note
from storage.stores import CONNECTIONS, Store, StoreError, naming
from storage.together import together

CLAIMS, PROBE = (
    "_claims",
    re.compile(r"[0-9a-f]{32}"),
)  # folder of the claims, and names of the objects that show the store's clock
HEARTBEAT = 60.0  # seconds for which a claim record is valid
RENEWAL = 15.0  # seconds between two renewals
POLL, NOTE_POLL = 0.3, 2.0  # seconds between two looks at a lock, at a claim record
SPARE_FILES = 1024  # open files of a process besides its claims

_HELD: set[str] = set()  # tokens of the claim records that this process holds

OnWait = Callable[[str], None]


class StageHeldError(Exception):
    """Another run holds the stage and the caller does not wait. The command line exits with 3."""


@dataclass(frozen=True)
class Clock:
    """The clock of a waiting claimant: seconds that only grow, and a function that sleeps."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


@contextlib.contextmanager
def claim(
    store: Store,
    path: str,
    holder: str,
    *,
    wait: bool = True,
    on_wait: OnWait | None = None,
    clock: Clock = CLOCK,
) -> Iterator[None]:
    """Hold the stage at `path` for the length of the block; the parameters are those of `claim_all`."""
    with claim_all(store, [path], holder, wait=wait, on_wait=on_wait, clock=clock):
        yield


@contextlib.contextmanager
def claim_all(
    store: Store,
    paths: Sequence[str],
    holder: str,
    *,
    wait: bool = True,
    on_wait: OnWait | None = None,
    clock: Clock = CLOCK,
) -> Iterator[None]:
    """Hold the stages at `paths`, each given once, for the length of the block.

    All claimants take their stages in one order, and keep no later stage while they wait: none waits for another that
    waits for it.

    Parameters
    ----------
    holder : name of this run, for others to read
    wait : wait for another holder; otherwise StageHeldError
    on_wait : called once for each stage, with the text that names the other holder

    Raises
    ------
    StageHeldError : another run holds one, and `wait` is false
    """
    text = f"{holder} (pid {os.getpid()} on {socket.gethostname()})"
    names = [claim_name(path) for path in sorted(paths)]
    waiting = Waiting(wait, on_wait or (lambda _: None), clock)
    with contextlib.ExitStack() as held:
        if store.local:
            for name in names:
                held.enter_context(_hold_local(store, name, text, waiting))
        else:
            held.enter_context(_hold_records(store, names, text, waiting))
        yield


def make_room(claims: int) -> None:
    """Raise this process's limit of open files for so many claims: a lock is an open file, usually 1,024 at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = claims + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def claim_name(path: str) -> str:
    """Return the path of a stage's claim, without its ending."""
    return f"{CLAIMS}/" + path.replace("/", "-")


@dataclass
class Waiting:
    """How a claimant waits for another holder."""

    allowed: bool
    on_wait: OnWait
    clock: Clock
    reported: set[str] = field(default_factory=set)

    def report(self, name: str, other: str) -> None:
        """Report the other holder of a stage once; raise StageHeldError where the claimant does not wait."""
        text = f"{name.removeprefix(f'{CLAIMS}/')} is held by {other}"
        if not self.allowed:
            raise StageHeldError(text)
        if name not in self.reported:
            self.on_wait(text)
        self.reported.add(name)


@contextlib.contextmanager
def _hold_local(store: Store, name: str, holder: str, waiting: Waiting) -> Iterator[None]:
    """Hold a flock on a file."""
    file = Path(store.path(f"{name}.lock"))
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip() or "another run"
            os.close(descriptor)
            waiting.report(name, other)
            waiting.clock.sleep(POLL)
            continue
        if _same_file(descriptor, file):
            break
        os.close(descriptor)  # removed by gc between opening and locking
    try:
        with naming(file):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _same_file(descriptor: int, file: Path) -> bool:
    """Say whether `file` still is what `descriptor` has open."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _hold_records(store: Store, names: Sequence[str], holder: str, waiting: Waiting) -> Iterator[None]:
    """Hold claim records that go out and are checked together; a thread renews the first one for all of them."""
    written, leader = list[Note](), None
    with contextlib.ExitStack() as held:
        held.callback(lambda: together(store, _let_go, written))
        while names:
            free = _wait_for_free(store, names[:CONNECTIONS], waiting)
            notes = [_new_note(store, name, holder) for name in free]
            leader = leader or notes[0]
            for note in notes:
                note.leader = None if note is leader else leader
            written += notes
            together(store, lambda note: store.write(note.path, note.text()), notes)
            ours = [*together(store, _is_ours, notes), False]  # of two records written at once, the later one is valid
            taken = ours.index(False)
            together(store, _let_go, notes[taken:])  # later ones, which no claimant keeps while it waits
            held.enter_context(RENEWER.renewing(notes[:taken]))
            leader = leader if taken or leader is not notes[0] else None
            names = names[taken:]
        yield


def _wait_for_free(store: Store, names: Sequence[str], waiting: Waiting) -> Sequence[str]:
    """Return the first names, up to one with a valid claim record; wait where that is the very first."""
    found = together(store, lambda name: _read_note(store, f"{name}.json"), names)
    taken = [note is not None and not _is_over(note) for note in found]
    if taken[0]:
        _await_note(store, names[0], waiting)
        return names[:1]
    return names[: [*taken, True].index(True)]


def _new_note(store: Store, name: str, holder: str) -> Note:
    """Return a claim record that this process is about to write."""
    record = {"holder": holder, "token": uuid.uuid4().hex, "process": process_identity(os.getpid())}
    _HELD.add(record["token"])
    return Note(store, f"{name}.json", record, RENEWAL)


def _let_go(note: Note) -> None:
    """Remove a claim record from the store if it is still ours."""
    with contextlib.suppress(OSError, StoreError):  # a claim record that stays is stale soon
        if _is_ours(note):
            note.store.remove_object(note.path)
    _HELD.discard(note.document["token"])


def _is_ours(note: Note) -> bool:
    """Say whether a claim record is still the one in the store."""
    try:
        return note.ours(note.store.read(note.path))
    except FileNotFoundError:
        return False


def _await_note(store: Store, name: str, waiting: Waiting) -> None:
    """Return once no valid claim record is there."""
    path, clock = f"{name}.json", waiting.clock
    seen, since = None, 0.0
    while (note := _read_note(store, path)) is not None and not _is_over(note):
        place, renewed = _renewed(store, path, note)
        if (note, renewed) != seen:
            # A renewal that we watch is new; only the first record may be old. One whose leader another run took is
            # renewed by itself within a heartbeat. After a store's clock was put back, records from the future are
            # there.
            led = place == path and LEADER in note
            age = max(0.0, _age(store, place)) if seen is None and not led else 0.0
            seen, since = (note, renewed), clock.now() - age
        if clock.now() - since >= HEARTBEAT:
            return
        waiting.report(name, str(note.get("holder", "another run")))
        clock.sleep(NOTE_POLL)


def _renewed(store: Store, path: str, note: Document) -> tuple[str, Document]:
    """Return the path and the content of the record that is renewed for a claim record: its leader's, else its own."""
    leader = note.get(LEADER)
    if isinstance(leader, str) and leader.startswith(f"{CLAIMS}/"):
        found = _read_note(store, leader)
        if found is not None and found.get("token") == note.get(LEADER_TOKEN):
            return leader, found
    return path, note


def _age(store: Store, path: str) -> float:
    """Return the age of a claim record in seconds, by the clock of the store."""
    return store_time(store) - store.modified(path)


def store_time(store: Store) -> float:
    """Return the store's own time in seconds since 1970: the date of an object written now."""
    probe = f"{CLAIMS}/{uuid.uuid4().hex}"
    store.write(f"{probe}/now", b"")
    try:
        return store.modified(probe)
    finally:
        store.remove(probe)


def find_probes(store: Store) -> list[str]:
    """Return the paths of objects that `store_time` has written, in this moment or before a kill."""
    return [f"{CLAIMS}/{name}" for name in store.names(CLAIMS) if PROBE.fullmatch(name)]


def _read_note(store: Store, path: str) -> Document | None:
    """Return a claim record, or None where there is none."""
    try:
        return decode_note(store.read(path))
    except FileNotFoundError:
        return None


def _is_over(note: Document) -> bool:
    """Say whether a claim has visibly ended: its process is dead, or has released it without removing the record."""
    identity = str(note.get("process"))
    left_behind = identity == process_identity(os.getpid()) != "" and note.get("token") not in _HELD
    return left_behind or is_dead(identity)
