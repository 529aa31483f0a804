"""The conversion of a recorded training's archive, as a stage: a partition per segment, on the workers of its run."""

from __future__ import annotations

from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from storage.updates.archives import CONVERTED
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.recording import UPDATES, archive_size, reading_peak
from tasks.steps.common.replays import recorded_archive
from tasks.steps.common.survey import state_bytes

VERSION = 1


def materialised_spec(training: StageSpec, kind: str, tolerance: float) -> StageSpec:
    """Return the spec of the conversion of a training's archive into a kind.

    Parameters
    ----------
    tolerance : largest cosine error of a hybrid archive
    """
    from tasks.recording.conversion import conversion_settings

    place: Document = {"kind": kind, "tolerance": tolerance}
    return MATERIALISED.spec(
        conversion_settings(kind, tolerance), {"network": training}, place=place, label=f"{training.label} {kind}"
    )


def why_unconvertible(store: Store, training: StageSpec, kind: str) -> str:
    """Return why the archive of a finished training cannot be converted into a kind, "" where it can."""
    from tasks.recording.conversion import check_convertible

    try:
        check_convertible(recorded_archive(store, training), kind)
    except ValueError as error:
        return str(error)
    return ""


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per segment."""
    from tasks.recording.conversion import check_convertible

    source = recorded_archive(store, spec.inputs["network"])
    check_convertible(source, str(spec.place["kind"]))
    return Layout(len(source.segments()))


def _partition(work: Work, number: int) -> None:
    """Convert a segment."""
    from tasks.recording.conversion import write_converted

    stage = work.stage
    source, place = recorded_archive(stage.store, stage.spec.inputs["network"]), stage.spec.place
    with stage.partition(number) as part:
        write_converted(part, source, str(place["kind"]), float(str(place["tolerance"])))


def _summary(stage: Stage) -> Document:
    """Return what the archive holds, and which archive it was."""
    from tasks.recording.conversion import conversion_summary

    training = stage.spec.inputs["network"]
    return conversion_summary(recorded_archive(stage.store, training), training.path, str(stage.spec.place["kind"]))


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: that of an archive of the kind, before compression."""
    training = spec.inputs["network"]
    weights = state_bytes(survey.blank(training))
    _, needed = archive_size(training, survey, kind=str(spec.place["kind"]))
    return Size(needed, UPDATES + 8 * weights + reading_peak(training, survey, weights))


MATERIALISED = Step(CONVERTED, VERSION, _layout, _partition, _size, summary=_summary, network=True)
