"""Verification: read everything again and name what is not what was written."""

from collections.abc import Iterator

import zarr

from storage.documents import DamagedError, decode
from storage.layouts import array_digest
from storage.stages import FinishedStage, find_finished, marker_name, read_marker
from storage.stores import FORMAT_FILE, Store

NO_STAGES = (FORMAT_FILE, "reports")


def stage_paths(store: Store) -> list[str]:
    """Return the paths of all stages in a store, complete or not."""
    kinds = [name for name in store.names("") if not name.startswith("_") and name not in NO_STAGES]
    return [f"{kind}/{key}" for kind in kinds for key in store.names(kind)]


def verify_stage(store: Store, path: str) -> Iterator[str]:
    """Yield a line per damaged thing of the stage at `path`; what is merely incomplete is no damage."""
    try:
        finished = find_finished(store, path)
    except DamagedError as error:
        yield str(error)
        return
    if finished is None:
        return
    yield from _verify_attributes(finished)
    for partition in range(finished.layout.partitions):
        yield from _verify_partition(finished, partition)
    yield from _verify_files(finished)


def verify_records(store: Store) -> Iterator[str]:
    """Yield a line per damaged run record."""
    for name in store.names("_runs"):
        for file in store.names(f"_runs/{name}"):
            path = f"_runs/{name}/{file}"
            try:
                decode(store.read(path), path)
            except DamagedError as error:
                yield str(error)


def _verify_attributes(stage: FinishedStage) -> Iterator[str]:
    """Compare the attributes with the completion note."""
    try:
        place = stage.store.zarr(f"{stage.path}/data.zarr", read_only=True)
        group = zarr.open_group(place, mode="r", use_consolidated=False)
        found = group.attrs.asdict().get("layerlore")
    except (ValueError, TypeError, KeyError, OSError) as error:
        yield f"{stage.path}/data.zarr/zarr.json: unreadable: {str(error).splitlines()[0]}"
        return
    if found != {"identity": stage.note["identity"], "layout": stage.note["layout"]}:
        yield f"{stage.path}/data.zarr/zarr.json: attributes differ from what was sealed"


def _verify_partition(stage: FinishedStage, partition: int) -> Iterator[str]:
    """Read a partition of every array and compare it with its marker."""
    try:
        marker = read_marker(stage.store, stage.path, partition)
    except FileNotFoundError:
        yield f"{stage.path}/markers/{marker_name(partition)}: missing"
        return
    except DamagedError as error:
        yield str(error)
        return
    for name, stated in marker["arrays"].items():
        start, stop = stage.layout.arrays[name].span(partition)
        try:
            if array_digest(stage.read(name, start, stop)) != stated:
                yield stage.damage(name, partition, "holds other values than were written")
        except DamagedError as error:
            yield _with_chunks(stage, name, partition, str(error))


def _with_chunks(stage: FinishedStage, name: str, partition: int, text: str) -> str:
    """Add the inner chunks that cannot be read."""
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
