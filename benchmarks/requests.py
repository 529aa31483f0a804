"""Seconds and requests of work on many stages behind a slow network: finding, making and verifying them.

    .venv/bin/python -m benchmarks.requests [--stages 2000] [--run] [--made 64] [--partitions 1000] [--delay 0.02]

Starts moto's server, and the tests' proxy that lets every request wait. Prints a line for a run with nothing to do and
one for the states that `status` shows, over completion records that are written directly. With `--run`, a run makes all
of these stages first: training, activations, coresets, features and evaluations of a few digits, with all that
`layerlore run` does but Prefect; that takes a quarter of an hour and more. Then it makes small stages:
without partitions, which are only claimed, begun and sealed, and with one partition each, and one stage with a
partition for each of 1,000 classes. It verifies them, and reads the partition records of the last one, as reports do.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # ships no types
import numpy as np
import yaml

from benchmarks.kills.bare import leave_prefect_out
from configs.load import config_text, load_config
from flows.command import Manner, answer
from flows.plan import Plan, make_plan
from flows.progress import stage_states
from storage import s3
from storage.documents import Document, digest, encode
from storage.layouts import ArrayLayout, Layout
from storage.memory import remembering
from storage.runs import write_record
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import Store, open_store
from storage.verify import stage_paths, verify_stages
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Job, make
from tasks.engine.observers import LineObserver
from tasks.engine.step import Size, Step, Work
from tasks.steps.report import made_from, report_path

SERVERS = Path(__file__).parents[1] / "tests" / "s3"
KEYS = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "hush-5f3b9c17", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "many"
PER_DRAW = 3  # stages: coreset, features, evaluation


def many_stages(store: str, stages: int) -> dict[str, Any]:  # Any: YAML
    """Return a config of about so many stages, by the draws of a random coreset."""
    train = {"data": "digits", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.05}, "batches": {"size": 16}}
    return {
        "name": "many",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {"digits": {"source": "sklearn-digits", "per_class": {"train": 2, "val": 1}}},
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 2},
                "train": train,
                "preprocessing": {"mode": "L"},
            }
        },
        "interpretation": {
            "networks": ["small"],
            "selectors": {"random": {"repeats": max(1, stages // PER_DRAW)}},
            "budgets": [0.5],
            "interpreters": {"ice": {"components": 1}},
        },
    }


def pretend_finished(plan: Plan, store: Store) -> None:
    """Write what says that a run is finished: completion records of stages without arrays, the record, the report."""
    empty = {"layout": Layout(1).document(), "arrays": {}, "files": {}, "summary": {}, "metadata": {"": digest(b"")}}
    notes = {f"{spec.path}/markers/complete.json": encode({"identity": spec.identity, **empty}) for spec in plan.stages}
    store.write_all(notes)
    facts: Document = {"config_text": config_text(plan.config)}
    write_record(store, plan.config.name, plan.config.model_dump(mode="json"), list(plan.stages), facts)
    folder = report_path(plan.config).rpartition("/")[0]
    store.write(f"{folder}/made-from", made_from(plan.made()).encode())


@contextmanager
def server(*command: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Run a server that prints its endpoint; yield that and, at the end, what it has counted."""
    counts: dict[str, int] = {}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["endpoint"], counts
        finally:
            process.terminate()
            if line := process.stdout.readline():
                counts.update(json.loads(line))


def measure(title: str, backend: str, delay: float, command: Callable[[], object]) -> None:
    """Run a command behind the slow proxy and print what it took."""
    with server(str(SERVERS / "fault_proxy.py"), "--backend", backend, "--share", "0", "--delay", str(delay)) as found:
        endpoint, counts = found
        s3.close()
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        started, cpu = time.perf_counter(), time.process_time()
        command()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    counted = f"{counts['requests']} requests, at most {counts.get('most at once')} at once"
    print(f"{title}: {seconds:.1f} s, {cpu:.1f} s of CPU time, {counted}", flush=True)


def small(kind: str, partitions: int) -> Step:
    """Return a kind of stage of so many partitions of two numbers each."""
    arrays = {"x": ArrayLayout((2 * partitions,), "float32", ("n",), 2, 2)} if partitions else {}

    def partition(work: Work, number: int) -> None:
        with work.stage.partition(number) as part:
            part.write("x", np.ones(2, np.float32))

    return Step(kind, 1, lambda *_: Layout(partitions, arrays), partition, lambda *_: Size(0, 0))


def make_small(store: Store, count: int, partitions: int) -> None:
    """Make so many small stages of one kind."""
    step = small({0: "claimed", 1: "small"}.get(partitions, "large"), partitions)
    specs = [StageSpec(step.kind, 1, {"number": number}) for number in range(count)]
    make(Job(remembering(store), SerialPool(), LineObserver(io.StringIO())), step, specs)


def verify_small(store: Store, kind: str = "small") -> None:
    """Verify the small stages of a kind."""
    paths = [path for path in stage_paths(store) if path.startswith(f"{kind}/")]
    assert not [line for lines in verify_stages(store, paths) for line in lines]


def read_records_of(store: Store, partitions: int) -> None:
    """Read the partition records of the large stage."""
    (path,) = [path for path in stage_paths(store) if path.startswith("large/")]
    stage = find_finished(store, path)
    assert stage is not None
    assert len(stage.markers()) == partitions


def main() -> None:
    """Write the notes, then ask."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--stages", type=int, default=2000)
    cli.add_argument("--run", action="store_true", help="let a run make the stages")
    cli.add_argument("--made", type=int, default=64)
    cli.add_argument("--partitions", type=int, default=1000, help="of the large stage, more than one")
    cli.add_argument("--delay", type=float, default=0.02, help="seconds that each request waits")
    args = cli.parse_args()
    with server(str(SERVERS / "moto_server.py")) as (backend, _):
        os.environ |= {**KEYS, "AWS_ENDPOINT_URL": backend}
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        store = open_store(f"s3://{BUCKET}/store", create=True)
        source = Path(os.environ.get("TMPDIR", "/tmp")) / f"many-{os.getpid()}.yaml"
        source.write_text(yaml.safe_dump(many_stages(store.url, args.stages), sort_keys=False))
        try:
            plan = make_plan(load_config(str(source)))
            run = lambda: answer(str(source), [], Manner(), lambda _: None)  # noqa: E731
            print(f"{len(plan.stages)} stages, {1000 * args.delay:g} ms a request")
            if args.run:
                leave_prefect_out()
                measure("all of them made by a run", backend, args.delay, run)
            else:
                pretend_finished(plan, store)
            paths = [spec.path for spec in plan.stages]
            measure("states", backend, args.delay, lambda: stage_states(store, paths))
            measure("a run with nothing to do", backend, args.delay, run)
            for partitions, title in enumerate(("claimed, begun and sealed", "made, of one partition each")):
                making = partial(make_small, store, args.made, partitions)
                measure(f"{args.made} stages {title}", backend, args.delay, making)
            measure(f"{args.made} stages verified", backend, args.delay, lambda: verify_small(store))
            large = f"a stage of {args.partitions} partitions"
            measure(f"{large} made", backend, args.delay, lambda: make_small(store, 1, args.partitions))
            measure(f"{large}, its records read", backend, args.delay, lambda: read_records_of(store, args.partitions))
            measure(f"{large} verified", backend, args.delay, lambda: verify_small(store, "large"))
        finally:
            source.unlink()


if __name__ == "__main__":
    main()
