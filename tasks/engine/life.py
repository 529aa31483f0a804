"""The life of a stage: claim, create or resume, map the missing partitions, seal."""

import contextlib
import getpass
import os
import socket
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from configs.cluster import Cluster
from configs.imports import check_loaded
from configs.schema import Config
from storage.claims import claim_all, make_room
from storage.documents import Json
from storage.partitions import OvertakenError
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, begin_stage, find_many, open_finished, seal_all
from storage.stores import Store, naming
from storage.together import together
from tasks.cluster.forking import start_loading
from tasks.cluster.parallel import PASSING, PartitionError, Pool, open_pool
from tasks.cluster.versions import code_facts
from tasks.cluster.warming import libraries_ahead, libraries_of
from tasks.engine.step import MOST_TOGETHER, Step, Work
from tasks.engine.stops import check_stop, keeping_stops
from tasks.engine.watchdog import end_with_us


class Observer(Protocol):
    """An observer of the progress of a run."""

    def begin(self, title: str, total: int, done: int) -> None:
        """Note that a stage of `total` partitions starts or resumes, `done` of which are there already."""

    def advance(self, title: str) -> None:
        """Note that one more partition is done."""

    def end(self, title: str, seconds: float) -> None:
        """Note that the stage is complete."""

    def say(self, text: str) -> None:
        """Show a line of text."""


@dataclass(frozen=True)
class Job:
    """The store, the workers and the settings that every step of a run needs."""

    store: Store
    pool: Pool
    observer: Observer
    holder: str = "a run"
    wait: bool = True
    device: str = "auto"


def load_ahead(config: Config) -> None:
    """Let a process load what the workers of a run need, while the run begins; for a program with one run."""
    given = config.cluster.arguments  # variables in them are for libraries that are not loaded yet
    if config.cluster.kind == "local" and "env" not in given:
        process = start_loading(libraries_ahead(config))
        with contextlib.suppress(OSError):
            if process is not None:
                end_with_us(process)  # at once: by itself it would unload all libraries first


@contextlib.contextmanager
def open_job(
    config: Config, store: Store, observer: Observer, *, wait: bool = True, idle: bool = False
) -> Iterator[Job]:
    """Open the workers of a run, and close them at the end.

    Parameters
    ----------
    idle : all stages are complete, so the run needs no workers
    """
    cluster = Cluster(kind="serial") if idle else config.cluster
    with open_pool(cluster, observer.say, libraries=libraries_of(config)) as pool:
        yield Job(store, pool, observer, f"run {config.name} of {getpass.getuser()}", wait, config.cluster.device)


@dataclass(frozen=True)
class Assignment:
    """A partition that a worker is to make; messages name it by its index."""

    number: int
    work: Work

    def follows(self) -> bool:
        """Say whether the partition before it is done, in every stage."""
        return self.number == 0 or all(stage.marker(self.number - 1) is not None for stage in self.work.stages)

    def __str__(self) -> str:
        first, *others = self.work.stages
        return f"{self.number} of " + (f"{1 + len(others)} x {first.spec.stage}" if others else first.spec.title)


def complete(job: Job, step: Step, specs: Sequence[StageSpec]) -> list[FinishedStage]:
    """Complete the stages of `specs`, all of one kind, and return them.

    A complete stage stays as it is. A partial stage resumes with its missing partitions. The partitions of all stages
    are mapped at once: no worker waits for the last partition of a stage.
    """
    make(job, step, incomplete(job.store, specs))
    return [open_finished(job.store, spec) for spec in specs]


def incomplete(store: Store, specs: Sequence[StageSpec]) -> list[StageSpec]:
    """Return the stages that are not complete, each once."""
    unique = {spec.path: spec for spec in specs}  # a stage may have two roles
    finished = find_many(store, unique)
    return [spec for path, spec in unique.items() if path not in finished]


def make(job: Job, step: Step, specs: Sequence[StageSpec]) -> None:
    """Make stages of one kind that were found incomplete, each given once."""
    check_stop()
    make_room(len(specs))
    paths = [spec.path for spec in specs]
    with claim_all(job.store, paths, job.holder, wait=job.wait, on_wait=job.observer.say):
        if lacking := incomplete(job.store, specs):  # another run may have made some during the wait
            _make(job, step, lacking)


def _make(job: Job, step: Step, specs: Sequence[StageSpec]) -> None:
    """Create or resume the stages, map their missing partitions, and seal whole stages even if others fail."""
    started = time.perf_counter()
    begun = together(job.store, partial(_begin, job.store, step), specs)
    # Whatever another run has made of a new stage since, workers find.
    looked = together(job.store, lambda stage: replace(stage, seen={}) if stage.new else stage.looked(), begun)
    stages = [step.check(stage) for stage in looked]
    items = assignments(stages, job.device, group=step.group)
    title = specs[0].title if len(specs) == 1 else f"{specs[0].stage} ({len(specs)})"
    total = len(items) + sum(stage.layout.partitions - len(stage.missing()) for stage in stages)
    job.observer.begin(title, total, total - len(items))
    try:
        with keeping_stops():
            for _ in _map(job, step, items):
                job.observer.advance(title)
                check_stop()
    finally:
        _seal(job.store, step, stages)
    job.observer.end(title, time.perf_counter() - started)


def _seal(store: Store, step: Step, stages: Sequence[Stage]) -> None:
    """Seal the stages that have all partitions; partition records that were read before are not read again."""
    now = together(store, lambda stage: stage.looked(stage.seen), stages)
    whole = [stage for stage in now if not stage.missing()]
    finished = find_many(store, [stage.spec.path for stage in whole])  # a stage is sealed once
    seal_all([stage for stage in whole if stage.spec.path not in finished], step.summary)


def _begin(store: Store, step: Step, spec: StageSpec) -> Stage:
    """Create or resume a stage."""
    layout = step.layout(store, spec)
    with naming(store.path(spec.path)):
        return begin_stage(store, spec, layout)


def _map(job: Job, step: Step, items: list[Assignment]) -> Iterator[None]:
    """Make the partitions; where one of a chain fails, the other chains go on. Raise the first failure at the end."""
    failure: PartitionError | None = None
    for batch in _batches(items, chain=step.chain):
        ready = [item for item in batch if failure is None or item.follows()]
        try:
            for _ in job.pool.map(partial(run_partition, step.partition), ready, network=step.network):
                yield
        except PartitionError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def assignments(
    stages: Sequence[Stage], device: str, *, group: Callable[[StageSpec], Hashable] | None
) -> list[Assignment]:
    """Return the missing partitions, each of one stage, or of all stages of a group in which it is missing."""
    # A worker asks the store: another run may have made the partition since the stages were looked at.
    lacking = [(number, replace(stage, seen=None)) for stage in stages for number in stage.missing()]
    if group is None:
        return [Assignment(number, Work((stage,), device)) for number, stage in lacking]
    shared: dict[tuple[int, Hashable], list[Stage]] = {}
    for number, stage in lacking:
        shared.setdefault((number, group(stage.spec)), []).append(stage)
    return [
        Assignment(number, Work(tuple(members[start : start + MOST_TOGETHER]), device))
        for (number, _), members in sorted(shared.items(), key=lambda item: item[0][0])
        for start in range(0, len(members), MOST_TOGETHER)
    ]


def _batches(items: list[Assignment], *, chain: bool) -> list[list[Assignment]]:
    """Return lists of partitions that may run at once: all of them, or one of each chain at a time."""
    if not chain:
        return [items]
    numbers = sorted({item.number for item in items})
    return [[item for item in items if item.number == number] for number in numbers]


def run_partition(function: Callable[[Work, int], None], item: Assignment) -> None:
    """Make one partition in a worker, for the stages for which no other run has made it in the meantime."""
    work = item.work.missing(item.number)
    if not work.stages:
        return
    for stage in work.stages:
        check_own_code(stage.spec)
    reset_peak_memory()
    try:
        function(work, item.number)
    except OvertakenError:  # another run made it at the same time: the other stages of the work remain
        left = work.missing(item.number)
        if left == work:
            raise
        run_partition(function, Assignment(item.number, left))
    except Exception:
        if len(work.stages) == 1:
            raise
        _run_apart(function, Assignment(item.number, work.missing(item.number)))


def _run_apart(function: Callable[[Work, int], None], item: Assignment) -> None:
    """Make a partition of each stage separately, so that a failed stage does not stop the others.

    Raises
    ------
    PartitionError : some failed; the text has the first one's stage
    TimeoutError, ConnectionError : a temporary fault, if it was the first
    """
    failures: list[tuple[Stage, Exception]] = []
    for stage in item.work.stages:
        try:
            run_partition(function, Assignment(item.number, replace(item.work, stages=(stage,))))
        except Exception as error:
            failures.append((stage, error))
    if not failures:
        return
    stage, failure = failures[0]
    if isinstance(failure, PASSING):
        raise failure
    raise PartitionError(f"{stage.spec.title}: {str(failure) or type(failure).__name__}") from failure


def check_own_code(spec: StageSpec) -> None:
    """Raise ValueError where the user's own code differs between this process and the plan."""
    for used in (spec, *spec.inputs.values()):
        if "object" in used.digests:
            check_loaded(used.parameters["object"], used.digests["object"])
        if "code" in used.digests and "code" in spec.digests and "network" in used.parameters:
            check_loaded(used.parameters["network"]["model"], used.digests["code"])


def reset_peak_memory() -> None:
    """Reset the count of this process's peak memory, where the kernel can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory_mb() -> float:
    """Return this process's peak resident memory since the last reset, in MB; 0 where the kernel does not give it."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


@dataclass(frozen=True)
class Clock:
    """A clock for stages that are made together, whose records each keep a share of the time."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def share(self, stages: int) -> dict[str, Json]:
        """Return the share of one of `stages` stages: wall and CPU seconds."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"seconds": wall / stages, "cpu_seconds": cpu / stages}


def measured(**numbers: Json) -> dict[str, Json]:
    """Return metrics for a partition's record, with its peak memory and process."""
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "code": code_facts()}
    return {**numbers, "peak_mb": round(peak_memory_mb(), 1), **facts}
