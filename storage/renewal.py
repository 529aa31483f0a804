"""The heartbeat of the notes that a process holds on S3: one thread renews them all, however many they are."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from storage.documents import Document
from storage.stores import Store, StoreError

LEAVE = 5.0  # seconds that a renewal in progress may hold up the end


@dataclass(eq=False)
class Note:
    """A note that is held: where it lies, what it says, and every how many seconds it is renewed."""

    store: Store
    path: str
    document: Document
    every: float
    beat: int = 0
    due: float = field(default=0.0)

    def text(self) -> bytes:
        """Return what is written at this beat."""
        return json.dumps({**self.document, "beat": self.beat}).encode()

    def ours(self, raw: bytes) -> bool:
        """Say whether what was read at its place is this note."""
        return bool(decode_note(raw).get("token") == self.document["token"])


class Renewer:
    """Renews the notes it is given from one thread, which begins with the first and ends with the last."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self.forget()

    def forget(self) -> None:
        """Hold nothing: at first, and in a forked child, which has neither the thread nor its parent's claims."""
        self._held: list[Note] = []
        self._round: list[Note] = []  # under way: may be written though dropped
        self._changed = threading.Condition()
        self._thread = None

    @contextlib.contextmanager
    def renewing(self, note: Note) -> Iterator[None]:
        """Renew `note` for the length of the block; afterwards nothing is written any more."""
        with self._changed:
            note.due = time.monotonic() + note.every
            self._held.append(note)
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="renewal of claims", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._drop(note)
                self._changed.notify_all()
                self._changed.wait_for(lambda: note not in self._round, LEAVE)

    def _work(self) -> None:
        """Renew what is due until nothing is held."""
        while due := self._await_due():
            for store in {note.store for note in due}:
                # A fault that passes must not end the heartbeat.
                with contextlib.suppress(OSError, StoreError):
                    self._renew(store, [note for note in due if note.store == store])

    def _await_due(self) -> list[Note]:
        """Return the notes that are due now, as soon as there are any; empty where none is held any more."""
        with self._changed:
            self._round = []
            self._changed.notify_all()
            while self._held:
                now = time.monotonic()
                self._round = [note for note in self._held if note.due <= now]
                if self._round:
                    break
                self._changed.wait(min(note.due for note in self._held) - now)
            else:
                self._thread = None
            for note in self._round:
                note.due, note.beat = now + note.every, note.beat + 1
            return list(self._round)

    def _renew(self, store: Store, notes: list[Note]) -> None:
        """Write the notes of a store again, all at once; one that another has replaced is given up."""
        found = store.read_all([note.path for note in notes])
        texts = {}
        for note in notes:
            raw = found[note.path]
            if isinstance(raw, bytes) and not note.ours(raw):
                with self._changed:
                    self._drop(note)  # another took us for dead: both go on, which is slow and harmless
            elif isinstance(raw, bytes | FileNotFoundError):
                texts[note.path] = note.text()
        store.write_all(texts)

    def _drop(self, note: Note) -> None:
        """Hold a note no longer."""
        if note in self._held:
            self._held.remove(note)


RENEWER = Renewer()
os.register_at_fork(after_in_child=RENEWER.forget)


def decode_note(raw: bytes) -> Document:
    """Return what a note says; nothing where it is damaged."""
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
