"""Kill a run at random moments until it is done, and compare every array with an uninterrupted run's.

    python -m benchmarks.kills [CONFIG] [--kills 20] [--seed 0] [--set KEY=VALUE ...]

Runs `layerlore run CONFIG` once undisturbed, then, in a store of its own, starts it again and again; each time all
its processes get SIGKILL after a random share of the undisturbed run's time, until `--kills` of them fell before the
end of a run. When a run gets through, its store is compared and a fresh store is begun. Exit code 1 on a difference.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from storage.stages import find_finished
from storage.stores import open_store
from storage.verify import stage_paths, verify_stage


def command(config: str, store: Path, settings: list[str]) -> list[str]:
    """Return the command line of a run."""
    changes = [part for setting in [f"store={store}", *settings] for part in ("--set", setting)]
    return [str(Path(sys.executable).with_name("layerlore")), "run", config, *changes]


def start(config: str, store: Path, settings: list[str]) -> "subprocess.Popen[bytes]":
    """Start a run as the leader of a process group."""
    with (store.parent / f"{store.name}.log").open("ab") as log:
        return subprocess.Popen(command(config, store, settings), stdout=log, stderr=log, start_new_session=True)


def digests(store: Path) -> dict[str, dict[str, str]]:
    """Return the digest of every array and file of every finished stage; training checkpoints are left out by name."""
    opened = open_store(str(store))
    found = {}
    for path in stage_paths(opened):
        stage = find_finished(opened, path)
        assert stage is not None, f"{path} is not complete"
        damage = list(verify_stage(opened, path))
        assert not damage, damage
        found[path] = {**stage.note["arrays"], **stage.note["files"]}
    return found


def killed(process: "subprocess.Popen[bytes]", delay: float) -> str:
    """Kill a run and its workers after `delay` seconds; return the last line it logged, or nothing if it was done."""
    try:
        process.wait(delay)
        return ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "killed"


def main() -> None:
    """Run the test."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("config", nargs="?", default="digits")
    cli.add_argument("--kills", type=int, default=20)
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--set", action="append", default=[], dest="settings")
    args = cli.parse_args()
    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        assert start(args.config, Path(scratch, "whole"), args.settings).wait() == 0, "the undisturbed run failed"
        length = time.monotonic() - began
        expected = digests(Path(scratch, "whole"))
        print(f"undisturbed: {length:.0f} s, {len(expected)} stages", flush=True)
        kills, number = 0, 0
        while kills < args.kills:
            store, number = Path(scratch, f"killed{number}"), number + 1
            while True:
                delay = dice.uniform(0.0, length) if kills < args.kills else 10 * length
                process = start(args.config, store, args.settings)
                if not killed(process, delay):
                    assert process.returncode == 0, f"exit code {process.returncode}; see the log of {store.name}"
                    break
                kills += 1
                done = len(stage_paths(open_store(str(store)))) if (store / "layerlore-store").exists() else 0
                print(f"kill {kills} after {delay:.1f} s, {done} stages begun", flush=True)
            found = digests(store)
            differs = [path for path in expected if found.get(path) != expected[path]]
            print(
                f"store {number}: {'identical' if not differs and len(found) == len(expected) else differs}", flush=True
            )
            if differs or len(found) != len(expected):
                sys.exit(1)
    print(f"{kills} kills, every array and file identical")


if __name__ == "__main__":
    main()
