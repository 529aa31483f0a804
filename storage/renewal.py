"""The heartbeat of the claim records that a process holds on S3: one thread renews all of them.

Of records that are held together only the first, their leader, is renewed: the others name it, and are valid as long
as it is. A run that holds a thousand stages renews one record.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from storage.documents import Document
from storage.stores import Store, StoreError

LEAVE = 5.0  # seconds for which the end waits for a renewal in progress
LEADER, LEADER_TOKEN = "leader", "leader_token"  # of a claim record that another one is renewed for


@dataclass(eq=False)
class Note:
    """A claim record that this process holds.

    Attributes
    ----------
    document : its content
    every : seconds between two renewals
    leader : the record that is renewed for this one too, None for itself
    """

    store: Store
    path: str
    document: Document
    every: float
    leader: "Note | None" = None
    beat: int = 0
    due: float = field(default=0.0)

    def text(self) -> bytes:
        """Return the bytes that this renewal writes."""
        named = {} if self.leader is None else {LEADER: self.leader.path, LEADER_TOKEN: self.leader.document["token"]}
        return json.dumps({**self.document, **named, "beat": self.beat}).encode()

    def ours(self, raw: bytes) -> bool:
        """Say whether the bytes read at its path are this claim record."""
        return bool(decode_note(raw).get("token") == self.document["token"])


class Renewer:
    """Renews claim records from one thread, which starts with the first and ends with the last."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self.forget()

    def forget(self) -> None:
        """Hold no record: at first, and in a forked child, which has neither the thread nor its parent's claims."""
        self._held: list[Note] = []
        self._round: list[Note] = []  # in progress: may be written though dropped
        self._changed = threading.Condition()
        self._thread = None

    @contextlib.contextmanager
    def renewing(self, notes: Sequence[Note]) -> Iterator[None]:
        """Renew claim records for the length of the block; nothing is written after the block."""
        with self._changed:
            for note in notes:
                note.due = time.monotonic() + note.every
            self._held += notes
            self._changed.notify_all()
            if notes and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._work, name="renewal of claims", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                for note in notes:
                    self._drop(note)
                self._changed.notify_all()
                self._changed.wait_for(lambda: not any(note in self._round for note in notes), LEAVE)

    def _work(self) -> None:
        """Renew records when they are due, until this process holds none."""
        while due := self._await_due():
            for store in {note.store for note in due}:
                # A temporary fault must not end the heartbeat.
                with contextlib.suppress(OSError, StoreError):
                    self._renew(store, [note for note in due if note.store == store])

    def _await_due(self) -> list[Note]:
        """Wait for claim records that are due and return them; return none once this process holds none."""
        with self._changed:
            self._round = []
            self._changed.notify_all()
            while self._held:
                now = time.monotonic()
                leading = self._leading()
                self._round = [note for note in leading if note.due <= now]
                if self._round:
                    break
                self._changed.wait(min(note.due for note in leading) - now)
            else:
                self._thread = None
            for note in self._round:
                note.due, note.beat = now + note.every, note.beat + 1
            return list(self._round)

    def _leading(self) -> list[Note]:
        """Return the records to renew; one that has lost its leader to another run is renewed by itself from now on."""
        held = {id(note) for note in self._held}
        for note in self._held:
            if note.leader is not None and id(note.leader) not in held:
                note.leader = None
        return [note for note in self._held if note.leader is None]

    def _renew(self, store: Store, notes: list[Note]) -> None:
        """Write the claim records of a store again, all at once; drop a record that another run has replaced."""
        found = store.read_all([note.path for note in notes])
        texts = {}
        for note in notes:
            raw = found[note.path]
            if isinstance(raw, bytes) and not decode_note(raw):
                continue  # damaged, or half written by a server that can: it is looked at again
            if isinstance(raw, bytes) and not note.ours(raw):
                with self._changed:
                    self._drop(note)  # the other run took this one for dead: both go on, slow and harmless
            elif isinstance(raw, bytes | FileNotFoundError):
                texts[note.path] = note.text()
        store.write_all(texts)

    def _drop(self, note: Note) -> None:
        """Stop the renewal of a claim record."""
        if note in self._held:
            self._held.remove(note)


RENEWER = Renewer()
os.register_at_fork(after_in_child=RENEWER.forget)


def decode_note(raw: bytes) -> Document:
    """Return the content of a claim record; an empty document where it is damaged."""
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
