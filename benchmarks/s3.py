"""Throughput of a store on S3: against a store on the local disk, and against plain s3fs copies of the same bytes.

    .venv/bin/python -m benchmarks.s3 [--server swift|moto|environment] [--mib 256] [--threads 1 4] [--repeats 3]

`swift` and `moto` are started on loopback, as the tests do; `environment` takes the endpoint and credentials of the
environment and the bucket of `--bucket`. Writes a stage of half-precision maps by partitions, one shard each, with
partition records, and reads it back checked. The plain side copies the same shards by s3fs alone, with as many threads.
All sides take turns in one run; the medians of `--repeats` rounds are printed, in MB of stored bytes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import s3fs
from numpy.typing import NDArray

from storage.layouts import Layout, rows_layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, begin_stage
from storage.stores import Store, open_store

ROOT = Path(__file__).parents[1]
SERVERS = ROOT / "tests" / "s3"
PYTHONS = {"swift": str(ROOT / ".venv-swift" / "bin" / "python"), "moto": sys.executable}
ACCESS, SECRET = "test:tester", "hush-5f3b9c17"  # of the servers that are started here
SHAPE = (64, 14, 14)  # of a sample's map: 25 kB
ROWS = 640  # of a shard: 16 MB


@contextmanager
def endpoint(server: str, scratch: Path) -> Iterator[None]:
    """Start a server on loopback and point the environment at it."""
    if server == "environment":
        yield
        return
    command = [PYTHONS[server], str(SERVERS / f"{server}_server.py"), *([str(scratch)] if server == "swift" else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            place = json.loads(process.stdout.readline())["endpoint"]
            os.environ |= {"AWS_ENDPOINT_URL": place, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
            os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
            yield
        finally:
            process.terminate()


def make_bucket() -> str:
    """Make a bucket on a server of our own."""
    import boto3  # type: ignore[import-untyped]  # ships no types

    name = f"bench-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def timed(work: Callable[[int], object], count: int, threads: int) -> float:
    """Return the seconds that `count` pieces of work take."""
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(count)))
        return time.perf_counter() - started


def write_stage(store: Store, blocks: list[NDArray[np.float16]], threads: int) -> tuple[float, FinishedStage]:
    """Write a stage by partitions; return the seconds, and the stage."""
    dimensions = ("sample", "channel", "row", "column")
    layout = Layout(len(blocks), {"maps": rows_layout((len(blocks) * ROWS, *SHAPE), "float16", dimensions, ROWS)})
    stage = begin_stage(store, StageSpec("bench", 1, {"n": uuid.uuid4().hex}, label="of maps"), layout)

    def write(number: int) -> None:
        with stage.partition(number) as part:
            part.write("maps", blocks[number])

    return timed(write, len(blocks), threads), stage.seal()


def read_stage(stage: FinishedStage, blocks: list[NDArray[np.float16]], threads: int) -> float:
    """Read a stage by partitions and compare it; return the seconds."""

    def read(number: int) -> None:
        found = stage.read("maps", number * ROWS, (number + 1) * ROWS)
        assert found[0, 0, 0, 0] == blocks[number][0, 0, 0, 0]

    return timed(read, len(blocks), threads)


def round_of(local: Store, far: Store, blocks: list[NDArray[np.float16]], threads: int) -> dict[str, float]:
    """Return seconds by side and direction, and the bytes stored."""
    found: dict[str, float] = {}
    found["local write"], near = write_stage(local, blocks, threads)
    found["local read"] = read_stage(near, blocks, threads)
    found["store write"], stage = write_stage(far, blocks, threads)
    found["store read"] = read_stage(stage, blocks, threads)
    shards = [near.shard_path("maps", number) for number in range(len(blocks))]
    data = [local.read(shard) for shard in shards]
    assert data == [far.read(stage.shard_path("maps", number)) for number in range(len(blocks))]
    plain: Any = s3fs.S3FileSystem(use_listings_cache=False)  # Any: s3fs has no types
    places = [f"{far.root}/plain/{shard}" for shard in shards]
    found["plain write"] = timed(lambda n: plain.pipe_file(places[n], data[n]), len(data), threads)
    found["plain read"] = timed(lambda n: plain.cat_file(places[n]), len(data), threads)
    found["bytes"] = sum(map(len, data))
    for store, path in ((local, near.path), (far, stage.path), (far, "plain")):
        store.remove(path)
    return found


def report(rounds: list[dict[str, float]], threads: int) -> None:
    """Print medians and ratios."""
    size = rounds[0]["bytes"] / 1e6
    for direction in ("write", "read"):
        speed = {
            side: size / statistics.median(r[f"{side} {direction}"] for r in rounds)
            for side in ("local", "store", "plain")
        }
        spread = [r[f"plain {direction}"] / r[f"store {direction}"] for r in rounds]
        print(
            f"{threads} threads, {direction}: local disk {speed['local']:.0f} MB/s, S3 {speed['store']:.0f}, "
            f"plain s3fs {speed['plain']:.0f}; S3 is {speed['store'] / speed['local']:.2f} of local, "
            f"{speed['store'] / speed['plain']:.2f} of plain (rounds {min(spread):.2f}-{max(spread):.2f})",
            flush=True,
        )


def main() -> None:
    """Run the benchmark."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--server", choices=[*PYTHONS, "environment"], default="swift")
    cli.add_argument("--bucket", help="with --server environment")
    cli.add_argument("--mib", type=int, default=256, help="of maps before compression")
    cli.add_argument("--threads", type=int, nargs="+", default=[1, 4])
    cli.add_argument("--repeats", type=int, default=3)
    args = cli.parse_args()
    dice = np.random.default_rng(0)
    count = max(1, args.mib * 2**20 // (2 * ROWS * int(np.prod(SHAPE))))
    blocks = [np.maximum(dice.normal(size=(ROWS, *SHAPE)), 0).astype(np.float16) for _ in range(count)]
    scratch = Path(tempfile.mkdtemp(dir=ROOT))  # on a disk, which /tmp may not be
    try:
        with endpoint(args.server, scratch / "server"):
            far = open_store(f"s3://{args.bucket or make_bucket()}/bench-{uuid.uuid4().hex[:8]}", create=True)
            local = open_store(str(scratch / "store"), create=True)
            for threads in args.threads:
                rounds = [round_of(local, far, blocks, threads) for _ in range(args.repeats)]
                report(rounds, threads)
            print(f"{count} shards, {rounds[0]['bytes'] / 1e6 / count:.1f} MB each as stored, server {args.server}")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
