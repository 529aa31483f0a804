"""Recorders of a training's weight updates, and readers of their archives."""

from tasks.recording.archives import ARCHIVES
from tasks.recording.recorder import UpdateRecorder
from tasks.recording.replaying import ReplayMismatch
from tasks.recording.sources import UpdateBlock, UpdateSource, open_updates, update_source

__all__ = [
    "ARCHIVES",
    "ReplayMismatch",
    "UpdateBlock",
    "UpdateRecorder",
    "UpdateSource",
    "open_updates",
    "update_source",
]
