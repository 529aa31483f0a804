"""Verification: read all of a store again and name each object that is not what was written."""

from collections.abc import Iterator

from storage.documents import DamagedError, Document
from storage.layouts import array_digest
from storage.notes import marker_path, read_markers
from storage.runs import read_record, run_names
from storage.specs import KEY, KIND
from storage.stages import FinishedStage, find_finished, markers_digest
from storage.stores import Store


def stage_paths(store: Store) -> list[str]:
    """Return the paths of all stages in a store, complete or not."""
    kinds = [name for name in store.names("") if KIND.fullmatch(name)]
    return [f"{kind}/{key}" for kind in kinds for key in store.names(kind) if KEY.fullmatch(key)]


def verify_stage(store: Store, path: str) -> Iterator[str]:
    """Yield a line for each damaged object of the stage at `path`; an incomplete stage is not damaged."""
    try:
        finished = find_finished(store, path)
    except DamagedError as error:
        yield str(error)
        return
    if finished is None:
        return
    markers: dict[int, Document] = {}
    yield from _verify_markers(finished, markers)
    for name in finished.note["metadata"]:
        try:
            finished.check_metadata(name)
        except DamagedError as error:
            yield str(error)
        else:
            yield from _verify_array(finished, name, markers)
    yield from _verify_files(finished)


def verify_records(store: Store) -> Iterator[str]:
    """Yield a line for each damaged run record."""
    try:
        run_names(store)
    except DamagedError as error:
        yield str(error)
    for name in store.names("_runs"):
        for file in store.names(f"_runs/{name}"):
            try:
                read_record(store, name, file)
            except DamagedError as error:
                yield str(error)


def _verify_markers(stage: FinishedStage, markers: dict[int, Document]) -> Iterator[str]:
    """Read the partition records into `markers` and compare them with the completion record."""
    read = read_markers(stage.store, [(stage.path, partition) for partition in range(stage.layout.partitions)])
    for (path, partition), marker in read.items():
        if isinstance(marker, DamagedError):
            yield str(marker)
        elif isinstance(marker, Exception):
            yield f"{marker_path(path, partition)}: missing"
        else:
            markers[partition] = marker
    if len(markers) == stage.layout.partitions:
        for name, stated in stage.note["arrays"].items():
            if markers_digest(markers.values(), name) != stated:
                yield f"{stage.path}/markers: array {name!r}: expected the sealed partition records, found others"


def _verify_array(stage: FinishedStage, name: str, markers: dict[int, Document]) -> Iterator[str]:
    """Read every partition of an array and compare it with its record."""
    for partition, marker in markers.items():
        if name not in marker["arrays"]:
            continue
        start, stop = stage.layout.arrays[name].span(partition)
        try:
            if array_digest(stage.read(name, start, stop)) != marker["arrays"][name]:
                yield stage.damage(name, partition, "holds other values than were written")
        except DamagedError as error:
            yield _with_chunks(stage, name, partition, str(error))
        except OSError as error:
            yield stage.damage(name, partition, f"cannot be read: {error}")


def _with_chunks(stage: FinishedStage, name: str, partition: int, text: str) -> str:
    """Return a text with the rows of the inner chunks that cannot be read."""
    layout = stage.layout.arrays[name]
    start, stop = layout.span(partition)
    bad = []
    for low in range(start, stop, layout.chunk):
        try:
            stage.read(name, low, min(low + layout.chunk, stop))
        except DamagedError:
            bad.append(f"{low}-{min(low + layout.chunk, stop) - 1}")
    return f"{text} (rows {', '.join(bad)})" if bad else text


def _verify_files(stage: FinishedStage) -> Iterator[str]:
    """Read every file of the stage."""
    for name in stage.note["files"]:
        try:
            stage.read_file(name)
        except DamagedError as error:
            yield str(error)
