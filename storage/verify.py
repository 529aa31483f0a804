"""Verification: read all of a store again and name each object that is not what was written."""

from collections.abc import Iterator, Mapping, Sequence

from storage.documents import DamagedError, Document
from storage.finished import FinishedStage, preload_metadata
from storage.layouts import array_digest
from storage.notes import look_for_notes, marker_path, read_markers
from storage.packs import KEY as PACKED_NOTE
from storage.packs import read_records, record_path
from storage.runs import read_record, run_names
from storage.specs import KEY, KIND
from storage.stages import markers_digest
from storage.stores import FORMAT_FILE, Store
from storage.together import at_once, together

Records = Mapping[tuple[str, int], Document | Exception]  # by stage and partition

MOST_RECORDS = 1024  # partition records and metadata that are read together, a bound on memory


def stage_paths(store: Store) -> list[str]:
    """Return the paths of all stages in a store, complete or not."""
    kinds = [name for name in store.names("") if KIND.fullmatch(name) and name != FORMAT_FILE]
    keys = together(store, store.names, kinds)
    return [f"{kind}/{key}" for kind, found in zip(kinds, keys, strict=True) for key in found if KEY.fullmatch(key)]


def verify_stages(store: Store, paths: Sequence[str]) -> Iterator[list[str]]:
    """Yield for each stage at `paths` a line for each damaged object; an incomplete stage is not damaged.

    On stores that are not local, the records of several stages are read at once.
    """
    for some in at_once(store, paths):
        notes = look_for_notes(store, some)
        stages = [FinishedStage(store, path, note) for path, note in notes.items() if isinstance(note, dict)]
        lines = {path: [str(note)] for path, note in notes.items() if isinstance(note, DamagedError)}
        for group in _groups(stages):
            preload_metadata(group)
            markers = read_records(store, [(stage.path, stage.note) for stage in group])
            packed = [stage for stage in group if PACKED_NOTE in stage.note]
            asked = [(stage.path, partition) for stage in packed for partition in range(stage.layout.partitions)]
            single = read_markers(store, asked) if asked else {}
            for stage in group:
                lines[stage.path] = [*_verify(stage, markers), *_verify_single(stage, markers, single)]
        yield from (lines.get(path, []) for path in some)


def verify_stage(store: Store, path: str) -> list[str]:
    """Return a line for each damaged object of the stage at `path`; an incomplete stage is not damaged."""
    return next(verify_stages(store, [path]))


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


def _groups(stages: Sequence[FinishedStage]) -> Iterator[list[FinishedStage]]:
    """Yield the stages in order, as many together as keep the bound on records; at least one."""
    group, records = list[FinishedStage](), 0
    for stage in stages:
        more = stage.layout.partitions + len(stage.note["metadata"])
        if group and records + more > MOST_RECORDS:
            yield group
            group, records = [], 0
        group.append(stage)
        records += more
    if group:
        yield group


def _verify(stage: FinishedStage, read: Records) -> Iterator[str]:
    """Yield a line for each damaged object of a finished stage, whose partition records are in `read`."""
    markers: dict[int, Document] = {}
    yield from _verify_markers(stage, read, markers)
    for name in stage.note["metadata"]:
        try:
            stage.check_metadata(name)
        except DamagedError as error:
            yield str(error)
        else:
            yield from _verify_array(stage, name, markers)
    yield from _verify_files(stage)


def _verify_markers(stage: FinishedStage, read: Records, markers: dict[int, Document]) -> Iterator[str]:
    """Take the partition records of a stage into `markers` and compare them with the completion record."""
    faults: dict[str, None] = {}  # an object may have many records
    for partition in range(stage.layout.partitions):
        marker = read[stage.path, partition]
        if isinstance(marker, DamagedError):
            faults[str(marker)] = None
        elif isinstance(marker, Exception):
            faults[f"{record_path(stage.path, stage.note, partition)}: missing"] = None
        else:
            markers[partition] = marker
    yield from faults
    if len(markers) == stage.layout.partitions:
        for name, stated in stage.note["arrays"].items():
            if markers_digest(markers.values(), name) != stated:
                yield f"{stage.path}/markers: array {name!r}: expected the sealed partition records, found others"


def _verify_single(stage: FinishedStage, packed: Records, single: Records) -> Iterator[str]:
    """Yield a line for each single record that differs from the packed one; other programs read it."""
    for (path, partition), marker in single.items():
        if path != stage.path or isinstance(packed[path, partition], Exception):
            continue
        if isinstance(marker, DamagedError):
            yield str(marker)
        elif isinstance(marker, Exception):
            yield f"{marker_path(path, partition)}: missing"
        elif marker != packed[path, partition]:
            yield f"{marker_path(path, partition)}: expected the sealed partition record, found another"


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
