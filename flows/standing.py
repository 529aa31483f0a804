"""How the runs of a store stand: their outcome, age, stages, bytes and report, from notes and listings alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flows.progress import stage_states
from storage.processes import is_dead
from storage.runs import TIME, RunRecord, log_path, newest_record
from storage.stores import Store
from storage.together import together


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes
    ----------
    state : done, failed, interrupted, running, or killed where the run's process has ended without a word
    age : seconds since the run began, NaN where it is not known
    stages : states by title, in order
    size : bytes of its stages, with those that other runs share
    report, log : addresses, "" where there is none
    error : of a run that failed
    """

    name: str
    state: str
    age: float
    stages: dict[str, str]
    size: int
    report: str
    log: str
    error: str

    @property
    def complete(self) -> int:
        """The number of complete stages."""
        return [*self.stages.values()].count("complete")

    @property
    def missing(self) -> dict[str, str]:
        """The stages that are not complete, by title."""
        return {title: state for title, state in self.stages.items() if state != "complete"}


def standings(store: Store, names: Sequence[str]) -> list[Standing]:
    """Return how runs stand; what they share is asked once."""
    last = together(store, lambda name: newest_record(store, name), names)
    paths = list(dict.fromkeys(stage["path"] for record in last for stage in record.stages))
    states, sizes = stage_states(store, paths), _sizes(store, paths)
    return [_standing(store, record, states, sizes) for record in last]


def _standing(store: Store, record: RunRecord, states: dict[str, str], sizes: dict[str, int]) -> Standing:
    """Return how the run of a record stands."""
    document, report = record.document, f"reports/{record.name}/index.html"
    log = log_path(record.name, record.time)
    killed = document["outcome"] == "running" and is_dead(str(document.get("process", "")))
    return Standing(
        record.name,
        "killed" if killed else document["outcome"],
        _age(record.time),
        {stage["title"]: states[stage["path"]] for stage in record.stages},
        sum(sizes[stage["path"]] for stage in record.stages),
        store.path(report) if store.exists(report) else "",
        store.path(log) if store.exists(log) else "",
        str(document.get("error", "")),
    )


def _age(time: str) -> float:
    """Return the seconds since the time of a record; NaN for the file of another program."""
    try:
        return (datetime.now(UTC) - datetime.strptime(time, TIME).replace(tzinfo=UTC)).total_seconds()
    except ValueError:
        return float("nan")


def _sizes(store: Store, paths: Sequence[str]) -> dict[str, int]:
    """Return the bytes of stages by path; one listing for each kind of stage."""
    kinds = list(dict.fromkeys(path.partition("/")[0] for path in paths))
    sizes = dict.fromkeys(paths, 0)
    for kind, files in zip(kinds, together(store, store.files, kinds), strict=True):
        for name, size in files.items():
            path = f"{kind}/{name.partition('/')[0]}"
            if path in sizes:
                sizes[path] += size
    return sizes
