"""What partitions cost without work: Dask, threads, none; Prefect; records. Prints lines of JSON.

    python -m benchmarks.scale_overhead FOLDER

FOLDER is one that `benchmarks.scale` has written; its selections are there. The items are those of a sweep over every
class, selector, repeat and budget apart, and the partitions that the selection stage makes of them.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed.protocol.pickle import dumps

from benchmarks.scale_pieces import Here, config_of, opened, selections
from benchmarks.scale_watch import spending
from configs.load import prefect_defaults
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import Assignment, Job, assignments, complete, measured
from tasks.engine.step import Step, Work
from tasks.steps.interpretation.selection import SELECTION

KINDS = ("serial", "threads", "local")

Line = dict[str, Any]  # Any: JSON


def nothing(item: object) -> int:
    """An empty function."""
    return 0


def emptied(spec: StageSpec) -> StageSpec:
    """Return the spec of a stage with a selection's layout and nothing chosen."""
    return replace(spec, stage="nothing")


def _layout(store: Store, spec: StageSpec) -> Layout:
    return open_finished(store, replace(spec, stage="selection")).layout


def _empty(work: Work, number: int) -> None:
    """Write what a selection writes, without reading or selecting."""
    for stage in work.stages:
        with stage.partition(number) as part:
            for name, layout in stage.layout.arrays.items():
                first, last = layout.span(number)
                part.write(name, np.zeros((last - first, *layout.shape[1:]), layout.dtype))
            part.numbers.update(measured(classes={}))


EMPTY = Step("nothing", 1, _layout, _empty, SELECTION.size, group=SELECTION.group)


def cost(here: Here, function: Callable[[Any], Any], items: Sequence[Any]) -> Line:  # Any: items of every kind
    """Return what a pool takes for items: seconds each, and what they add to this process, scheduler included."""
    process = psutil.Process()
    before = peak = process.memory_info().rss
    with spending() as spent:
        for count, _ in enumerate(here.job.pool.map(function, items)):
            if count % 500 == 0:
                peak = max(peak, process.memory_info().rss)
    each = {"wall": spent.wall / len(items), "cpu": spent.cpu / len(items)}
    return {"items": len(items), **each, "added_mb": (peak - before) / 2**20, "pickled": len(dumps(items[0]))}


def together(here: Here) -> list[Assignment]:
    """Return all partitions of all selections, as if none were made."""
    stages = [Stage(here.job.store, s, open_finished(here.job.store, s).layout) for s in selections(here.plan)]
    return assignments(
        [_Unmade(stage.store, stage.spec, stage.layout) for stage in stages], "cpu", group=SELECTION.group
    )


class _Unmade(Stage):
    """A stage without any partition."""

    def missing(self) -> list[int]:
        return list(range(self.layout.partitions))


def lines(folder: Path) -> Iterator[Line]:
    """Yield what was measured."""
    for kind in KINDS:
        with opened(config_of(folder, workers=2, memory="3GB", kind=kind)) as here:
            store, specs = here.job.store, selections(here.plan)
            classes = len(open_finished(store, here.activations).summary["classes"])
            items = together(here)
            for name, given in (("a class and coreset each", range(classes * len(specs))), ("partitions", items)):
                yield {"pool": kind, "what": name, **cost(here, nothing, list(given))}
            yield {"pool": kind, "what": "state alone", **_state(here.job, [emptied(spec) for spec in specs])}
    with opened(config_of(folder, workers=2, memory="3GB", kind="local")) as here:
        yield {"pool": "local", "what": "one Prefect task", **_prefect(here)}


def _state(job: Job, specs: list[StageSpec]) -> Line:
    """Return what the stages of a sweep take when nothing is computed, and when all is there."""
    with spending() as made:
        finished = complete(job, EMPTY, specs)
    with spending() as again:
        complete(job, EMPTY, specs)
    partitions = sum(stage.layout.partitions for stage in finished)
    job.store.remove("nothing")
    return {"items": partitions, "wall": made.wall / partitions, "cpu": made.cpu / partitions, "again": again.wall}


def _prefect(here: Here) -> Line:
    """Return what one stage of many partitions takes within a flow, on a server of Prefect's own, and its tasks."""
    os.environ["PREFECT_HOME"] = str(Path(here.plan.config.store).parent / "prefect")
    prefect_defaults()
    from prefect import flow
    from prefect.client.orchestration import get_client

    from tasks.engine.runner import run_step, start_prefect

    specs = [emptied(spec) for spec in selections(here.plan)]

    @flow(name="overhead")
    def work() -> None:
        run_step(here.job, EMPTY, specs)

    with spending() as started:
        start_prefect()
    with spending() as spent:
        work()
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs()
    partitions = sum(open_finished(here.job.store, spec).layout.partitions for spec in specs)
    here.job.store.remove("nothing")
    return {"items": partitions, "total": spent.wall, "start": started.wall, "prefect_tasks": len(runs)}


def main() -> None:
    """Measure and print."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("folder", type=Path)
    for line in lines(cli.parse_args().folder):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
