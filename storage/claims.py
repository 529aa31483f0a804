"""Claims keep two runs from doing the same work. Correctness never rests on them.

On a local store a claim is a `flock`, which the kernel frees when its process dies. On S3 it is a note that its
holder renews: best effort, since conditional puts are no lock everywhere. A note counts as abandoned once it has
not changed for `STALE` seconds of the reader's own clock, so that clocks need not agree.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from storage.stores import Store

HEARTBEAT = 15.0  # seconds between two renewals of a note
STALE = 90.0
POLL = 0.3

OnWait = Callable[[str], None]


class StageHeldError(Exception):
    """Another run holds the stage and the caller does not wait. The command line exits with 3."""


@contextlib.contextmanager
def claim(store: Store, path: str, holder: str, *, wait: bool = True, on_wait: OnWait | None = None) -> Iterator[None]:
    """Hold the stage at `path` for the length of the block.

    Parameters
    ----------
    holder : who we are, for others to read
    wait : wait for another holder; otherwise StageHeldError
    on_wait : called once with the text that names the other holder
    """
    text = f"{holder} (pid {os.getpid()} on {socket.gethostname()})"
    name = claim_name(path)
    hold = _hold_local if store.local else _hold_note
    with hold(store, name, text, wait, on_wait or (lambda _: None)):
        yield


def claim_name(path: str) -> str:
    """Return where the claim of the stage at `path` lies, without its ending."""
    return "_claims/" + path.replace("/", "-")


@contextlib.contextmanager
def _hold_local(store: Store, name: str, holder: str, wait: bool, on_wait: OnWait) -> Iterator[None]:
    """Hold a flock on a file."""
    file = Path(store.path(f"{name}.lock"))
    file.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip() or "another run"
            os.close(descriptor)
            told = _told(name, other, wait, told, on_wait)
            time.sleep(POLL)
            continue
        if _same_file(descriptor, file):
            break
        os.close(descriptor)  # removed by gc between opening and locking
    try:
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
def _hold_note(store: Store, name: str, holder: str, wait: bool, on_wait: OnWait) -> Iterator[None]:
    """Hold a note that is renewed from a thread."""
    path, token = f"{name}.json", uuid.uuid4().hex
    _await_note(store, path, wait, on_wait)
    stop = threading.Event()

    def renew() -> None:
        beat = 0
        while True:
            with contextlib.suppress(OSError):  # a passing fault must not end the heartbeat
                store.write(path, json.dumps({"holder": holder, "token": token, "beat": beat}).encode())
            beat += 1
            if stop.wait(HEARTBEAT):
                return

    store.write(path, json.dumps({"holder": holder, "token": token, "beat": -1}).encode())
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if (_read_note(store, path) or {}).get("token") == token:
            store.remove(path)


def _await_note(store: Store, path: str, wait: bool, on_wait: OnWait) -> None:
    """Return once there is no note or it has stopped changing."""
    told, seen, since = False, None, time.monotonic()
    while (note := _read_note(store, path)) is not None:
        told = _told(path, str(note.get("holder", "another run")), wait, told, on_wait)
        if note != seen:
            seen, since = note, time.monotonic()
        elif time.monotonic() - since > STALE:
            return
        time.sleep(POLL)


def _read_note(store: Store, path: str) -> dict[str, object] | None:
    """Return a note, or None where there is none."""
    try:
        found = json.loads(store.read(path))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _told(name: str, other: str, wait: bool, told: bool, on_wait: OnWait) -> bool:
    """Name the other holder once, or raise where the caller does not wait."""
    text = f"{name.removeprefix('_claims/').removesuffix('.json')} is held by {other}"
    if not wait:
        raise StageHeldError(text)
    if not told:
        on_wait(text)
    return True
