"""The conversion of archives from the command line: those of a run's trainings, or that of a loop of one's own."""

import sys
from collections.abc import Callable, Iterator

from configs.load import ConfigError
from flows.explaining import recorded_config
from flows.plan import make_plan
from storage.runs import choose_run, records, run_names
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import Store, StoreError
from storage.updates.facts import archive_facts
from tasks.engine.life import complete, open_job
from tasks.engine.observers import terminal_observer
from tasks.recording.conversion import KINDS, check_unconverted, materialise
from tasks.steps.common.materialised import MATERIALISED, materialised_spec, why_unconvertible
from tasks.steps.common.own_program import naming_options, needs_program, program_at


def convert_archives(
    store: Store, kind: str, *, run: str | None, program: str | None, tolerance: float, say: Callable[[str], None]
) -> Iterator[str]:
    """Convert the archives of a store into a kind; yield the path of each conversion.

    Parameters
    ----------
    run : name of the run; None for the only one, or for the archive of an `UpdateRecorder`
    program : import path `module:name` of the function that begins a user's training again

    Raises
    ------
    ConfigError : a kind or an import path that cannot be used
    StoreError : nothing is recorded, no archive can be converted into the kind, or the conversion is finished already
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    if not 0 <= tolerance <= 0.01:
        raise ConfigError(f"--tolerance: expected a number from 0 to 0.01, found {tolerance}")
    if run is None and not run_names(store):
        begun = program_at(program, needed=needs_program(archive_facts(store.url)))
        with naming_options():
            yield materialise(store.url, kind, program=begun, tolerance=tolerance, say=say)
        return
    if program is not None:
        raise ConfigError("--program: expected none for a run, which knows its training, found one; leave it out")
    with naming_options():
        yield from _of_run(store, choose_run(store, run, "training"), kind, tolerance, say)


def _records(training: StageSpec) -> bool:
    """Return whether a training keeps an archive; that of a training elsewhere is converted in its own store."""
    train = training.place.get("train")
    return isinstance(train, dict) and bool(train.get("record")) and "updates" not in training.place


def _of_run(store: Store, run: str, kind: str, tolerance: float, say: Callable[[str], None]) -> Iterator[str]:
    """Convert the archives of a run on the workers of its config; say which of several stay as they are."""
    config = recorded_config(records(store, run)[-1])
    plan = make_plan(config)
    trainings = [spec for spec in plan.shared.trainings.values() if _records(spec)]
    finished = [spec for spec in trainings if find_finished(store, spec.path) is not None]
    if not finished:
        raise StoreError(
            f"run {run}: expected a finished training with `record`, found none; `layerlore run` a config first"
        )
    kept = {spec: why for spec in finished if (why := why_unconvertible(store, spec, kind))}
    if len(kept) == len(finished):
        raise StoreError(f"{finished[0].label}: {kept[finished[0]]}")
    for spec, why in kept.items():
        say(f"{spec.label} stays as it is: {why}")
    specs = [materialised_spec(spec, kind, tolerance) for spec in finished if spec not in kept]
    missing = [spec for spec in specs if find_finished(store, spec.path) is None]
    if not missing:
        check_unconverted(store, specs[0])
    with terminal_observer(sys.stderr) as observer, open_job(config, store, observer) as job:
        for stage in complete(job, MATERIALISED, missing):
            yield stage.path
