"""Run into a full disk: a store on a file system of so many MB, which then gets room, and a run again.

    python -m benchmarks.kills.full_disk [--sizes 1 2 3] [--configs tiny traced decomposed] [--json FILE] [--folder DIR]

The file system is a tmpfs; where we may not mount one, this runs in a user namespace of its own, in which we may.
Each size falls into another stage. Expected: exit code 1 and one line that names the stage or file and the cause, no
damage in what looks finished, and, after there is room, the bytes of an undisturbed run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.kills.__main__ import SMALL, existing, log, small_config
from benchmarks.kills.campaign import Kill
from benchmarks.kills.moments import kinds
from benchmarks.kills.runs import Commands
from benchmarks.kills.servers import Servers
from benchmarks.kills.stores import Digests, contents, differences, left_over, torn
from benchmarks.kills.table import table
from benchmarks.kills.verdicts import DONE, FAILED, judged
from storage.stores import Store
from tests.deployments.conftest import clean_environment

FULL = ("No space left on device", "File too large")


def main() -> None:
    """Fill disks."""
    cli = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    cli.add_argument("--sizes", nargs="+", type=float, default=[0.2, 0.5, 1.0, 2.0], help="MB")
    cli.add_argument("--configs", nargs="+", default=list(SMALL))
    cli.add_argument("--json", type=Path)
    cli.add_argument("--folder", type=existing, help="an existing one, where stores and logs go")
    args = cli.parse_args()
    if not may_mount():
        again = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "benchmarks.kills.full_disk"]
        os.execvp("unshare", [*again, *sys.argv[1:]])
    rows = list(fill_disks(args.sizes, args.configs, args.folder))
    print("\n".join(table([asdict(row) for row in rows])))
    if args.json is not None:
        before = json.loads(args.json.read_text()) if args.json.exists() else []
        args.json.write_text(json.dumps([*before, *map(asdict, rows)], indent=1))
    sys.exit(0 if rows and not any(row.problems for row in rows) else 1)


def fill_disks(sizes: list[float], configs: list[str], parent: Path | None) -> Iterator[Kill]:
    """Yield what became of each size; those that a run fits into do not count."""
    folder = Path(tempfile.mkdtemp(prefix="layerlore-full-", dir=parent))
    environment = clean_environment(
        PREFECT_HOME=str(folder / "prefect-home"), PREFECT_SERVER_ANALYTICS_ENABLED="false", COLUMNS="200", NO_COLOR="1"
    )
    servers, commands = Servers(folder, environment), Commands(folder, environment)
    try:
        servers.prefect()
        for config in configs:
            given = small_config(config, folder)
            whole = commands.start("run", given, "--set", f"store={folder / 'whole'}")
            assert whole.wait() == 0, whole.text()
            expected = contents(Store(str(folder / "whole")))
            Store(str(folder / "whole")).remove("")
            for size in sizes:
                if (found := fill(commands, given, config, folder / "disk", size, expected)) is not None:
                    log(f"{size} MB: {found.stage} of {config}, problems: {found.problems} [{found.said}]")
                    yield found
    finally:
        commands.close()
        servers.stop()


def fill(commands: Commands, given: str, config: str, disk: Path, size: float, expected: Digests) -> Kill | None:
    """Run into a disk of `size` MB, give it room, run again; None where the run fitted."""
    disk.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={int(size * 1024)}k", "tmpfs", str(disk))
    try:
        store = Store(str(disk / "store"))
        first = commands.start("run", given, "--set", f"store={store.url}")
        code = first.wait()
        if code == DONE:
            return None
        problems = judged(first, code, {FAILED}) + list(torn(store))
        said = next((line for _, line in first.lines if line.startswith("error")), "")
        if not any(text in said for text in FULL):
            problems.append(f"said {said!r}")
        mount("-o", "remount,size=500m", str(disk))
        second = commands.start("run", given, "--set", f"store={store.url}")
        problems += judged(second, second.wait(), {DONE})
        verify = commands.start("verify", store.url)
        problems += judged(verify, verify.wait(), {DONE})
        differing = [*differences(expected, contents(store))]
        problems += [*differing, *left_over(store)]
        stage = kinds(first)[-1]
        return Kill(
            "full disk",
            "local",
            config,
            "serial",
            "standing",
            stage,
            False,
            not differing,
            problems=problems,
            said=said,
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def may_mount() -> bool:
    """Say whether we may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def mount(*options: str) -> None:
    """Call mount."""
    subprocess.run(["mount", *options], check=True)


if __name__ == "__main__":
    main()
