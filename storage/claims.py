"""Claims keep two runs from doing the same work. Correctness never depends on them.

On a local store a claim is a `flock`. The kernel frees it when its process dies. On S3 a claim is a record that its
holder renews. This is best effort, since not every server has conditional puts: two runs that begin within one
request of each other may both hold a stage. A claim record is valid for `HEARTBEAT` seconds after its last renewal.
S3 gives its age, or a process watches it for that time: clocks need not agree. It is not valid after the end of its
process, where this machine can see that end.
"""

import contextlib
import fcntl
import os
import re
import resource
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from storage.documents import Document
from storage.renewal import RENEWER, Note, decode_note
from storage.stores import Store, StoreError, naming

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
    """Hold the stage at `path` for the length of the block.

    Parameters
    ----------
    holder : name of this run, for others to read
    wait : wait for another holder; otherwise StageHeldError
    on_wait : called once with the text that names the other holder

    Raises
    ------
    StageHeldError : another run holds it, and `wait` is false
    """
    text = f"{holder} (pid {os.getpid()} on {socket.gethostname()})"
    name = claim_name(path)
    hold = _hold_local if store.local else _hold_note
    with hold(store, name, text, Waiting(wait, on_wait or (lambda _: None), clock)):
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
    reported: bool = False

    def report(self, name: str, other: str) -> None:
        """Report the other holder once; raise StageHeldError where the claimant does not wait."""
        text = f"{name.removeprefix(f'{CLAIMS}/')} is held by {other}"
        if not self.allowed:
            raise StageHeldError(text)
        if not self.reported:
            self.on_wait(text)
        self.reported = True


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
def _hold_note(store: Store, name: str, holder: str, waiting: Waiting) -> Iterator[None]:
    """Hold a claim record that a thread renews."""
    record = {"holder": holder, "token": uuid.uuid4().hex, "process": process_identity(os.getpid())}
    note = Note(store, f"{name}.json", record, RENEWAL)
    _HELD.add(record["token"])
    try:
        while True:
            _await_note(store, name, waiting)
            store.write(note.path, note.text())
            if _is_ours(note):
                break  # of two records written at once, the later one is valid
        with RENEWER.renewing(note):
            yield
    finally:
        with contextlib.suppress(OSError, StoreError):  # a claim record that stays is stale soon
            if _is_ours(note):
                store.remove(note.path)
        _HELD.discard(record["token"])


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
        if note != seen:
            # A renewal that we watch is new; only the first record may be old. After a store's clock was put back,
            # records from the future are there.
            age = max(0.0, _age(store, path)) if seen is None else 0.0
            seen, since = note, clock.now() - age
        if clock.now() - since >= HEARTBEAT:
            return
        waiting.report(name, str(note.get("holder", "another run")))
        clock.sleep(NOTE_POLL)


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


def process_identity(pid: int) -> str:
    """Return an identity that no other process on any machine has; "" where the kernel does not give one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{_machine()}/{pid}/{'ended' if fields[0] in 'ZX' else fields[19]}"
    except (OSError, IndexError):
        return ""


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return the identities of this boot of this machine and of the visible table of processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"


def _is_over(note: Document) -> bool:
    """Say whether a claim has visibly ended: its process is dead, or has released it without removing the record."""
    identity = str(note.get("process"))
    left_behind = identity == process_identity(os.getpid()) != "" and note.get("token") not in _HELD
    return left_behind or _is_dead(identity)


def _is_dead(identity: str) -> bool:
    """Say whether a process of this machine has ended; False where this process cannot see that."""
    machine, _, pid = identity.rpartition("/")[0].rpartition("/")
    try:
        if machine != _machine():
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # another user's process, which lives
        return False
    return process_identity(int(pid)) not in ("", identity)
