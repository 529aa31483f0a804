"""Recording in a training stage: a segment's updates go beside its checkpoint, in the same partition."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storage.documents import Document
from storage.partitions import Partition
from storage.updates.archives import Segment
from tasks.recording.checkpoints import write_initial
from tasks.recording.segment import SegmentRecorder, attempt_folder
from tasks.recording.sources import choose_kind
from tasks.steps.common.trainer import Trainer


def kept_steps(train: Document) -> Callable[[int], bool] | None:
    """Return which steps' updates a training's settings keep; None for all."""
    spans = train["record"]["steps"]
    return None if spans is None else lambda step: any(start <= step < stop for start, stop in spans)


@contextmanager
def recording(
    train: Document, part: Partition, trainer: Trainer, start: int, stop: int
) -> Iterator[SegmentRecorder | None]:
    """Record the steps `start:stop` of the block into a partition, where the training's settings ask for it.

    The partition's numbers say afterwards what was recorded, and the first one's where the initial weights are.
    """
    record = train["record"]
    if record is None:
        yield None
        return
    choose_kind(record["kind"])
    if start == 0:
        part.numbers["initial"] = write_initial(part.write_file, trainer.state())
    segment = Segment(part.number, start, stop, attempt_folder(part.number))
    recorder = SegmentRecorder(
        trainer.model,
        trainer.optimizer,
        record["layers"],
        segment=segment,
        write=part.write_file,
        keep=kept_steps(train),
    )
    try:
        yield recorder
    except BaseException:
        recorder.abandon()
        raise
    part.numbers["recording"] = recorder.close()
