"""Recording a training's weight updates, and reading them back."""

from tasks.recording.recorder import UpdateRecorder
from tasks.recording.sources import SOURCES, UpdateBlock, UpdateSource, open_updates, update_source

__all__ = ["SOURCES", "UpdateBlock", "UpdateRecorder", "UpdateSource", "open_updates", "update_source"]
