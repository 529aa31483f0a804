"""Kill a process of a run at random moments, let the run get through, and compare every byte with an undisturbed run's.

    python -m benchmarks.kills [--target run|worker|scheduler|prefect|s3|disk|race|late|nothing] [--place local|s3]
                               [--kills 20] [--configs dense described ... | PRESET | FILE]
                               [--clusters serial threads] [--seed 0] [--bare] [--embedded] [--cold] [--spoil 0.1]
                               [--aim KIND ...] [--packing SECONDS] [--set KEY=VALUE ...] [--json FILE]
    python -m benchmarks.kills --table FILE...
    python -m benchmarks.kills.whole          # all of docs/faults.md

`run` is killed with its whole process group and run again; what else is killed is started again at the same port up
to three seconds later, as a supervisor would, and the run goes on by itself or is run again. For `disk`, another
program fills the store's disk at that moment and leaves it when the run has ended. `race` starts two runs of one store
at once instead. `late` stops the run at that moment and lets it go on when another run has made everything. `nothing`
disturbs nothing; `--spoil 0.1` lets a proxy spoil a tenth of the requests to S3.

Moments are spread evenly over the kinds of stages, start-up and report among them, or those of `--aim`; those that the
kills in the file of `--json` hit least come first. With `--packing` a pack of partition records takes so many seconds.
After each kill no finished stage may be damaged, and a run that nothing hits must get through. No partition that was
finished may be made again. Then every array, file and note of every stage and the report's tables and pictures have the
digests that they have in an undisturbed run, `layerlore verify` finds nothing, no claim blocks, no file is left that is
unfinished or that no note names; no command may have said more than one line of error, or anything after it, and no run
may have waited for a claim for as long as a heartbeat. Exit code 1 on any problem.

The small configs are in `configs.py`. Commands are forked from a process that has imported layerlore, so that kills
fall on work; `--cold` starts a new process for each. A standing Prefect server serves all unless `--embedded`, or with
`--bare`, which leaves Prefect out of the commands and all else in: most kills have nothing to do with it. `--json` adds
the kills to a file, from which `--table` makes one table of several campaigns. S3 is Swift, from .venv-swift. It
needs the tests and their packages: a checkout with `pip install -e '.[dev]'`.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from benchmarks.kills.campaign import DISK, LATE, NOTHING, RACE, WHOLE, Campaign, Kill, Setting
from benchmarks.kills.configs import CONFIGS
from benchmarks.kills.disks import Disk, become_able_to_mount
from benchmarks.kills.runs import Commands
from benchmarks.kills.servers import Servers
from benchmarks.kills.table import Row, table
from tasks.steps.questions import STEPS
from tests.deployments.conftest import clean_environment

S3_SLOWER = 5.0  # than a local disk, of the tests' small runs
NAMES = ("run", "worker", "scheduler", "prefect", "s3")
TARGETS = {name: name for name in NAMES} | {"disk": DISK, "race": RACE, "late": LATE, "nothing": NOTHING}


def main() -> None:
    """Run a campaign, or add some up."""
    args = parse()
    if args.table:
        print("\n".join(table(read_rows(args.table))))
        return
    if args.target == "disk":
        become_able_to_mount()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are stopped
    kills: list[Kill] = []
    before = read_rows([args.json] if args.json is not None and args.json.exists() else [])
    try:
        campaign(args, kills, before)
    finally:
        rows = [asdict(kill) for kill in kills]
        if args.json is not None and rows:
            args.json.write_text(json.dumps([*before, *rows], indent=1))
    print("\n".join(table(rows)))
    sys.exit(1 if any(kill.problems for kill in kills) else 0)


def read_rows(files: Sequence[Path]) -> list[Row]:
    """Return the kills of files."""
    return [row for file in files for row in json.loads(file.read_text())]


def existing(text: str) -> Path:
    """Return the folder that an option names."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return Path(text)


def campaign(args: argparse.Namespace, kills: list[Kill], before: Sequence[Row]) -> None:
    """Start the servers, kill, and add what was killed to `kills`; stores and logs of what went wrong stay."""
    folder = Path(tempfile.mkdtemp(prefix="layerlore-kills-", dir=args.folder))
    environment = clean_environment(
        PREFECT_HOME=str(folder / "prefect-home"), PREFECT_SERVER_ANALYTICS_ENABLED="false", COLUMNS="200", NO_COLOR="1"
    )
    servers = Servers(folder, environment)
    commands = Commands(folder, environment, warm=not args.cold, bare=args.bare, packing=args.packing)
    disk = Disk.mounted(folder / "disk") if args.target == "disk" else None
    try:
        if not (args.embedded or args.bare):
            servers.prefect()
        address = servers.dask() if args.target in ("worker", "scheduler") else None
        bucket = servers.s3().make_bucket() if "s3" in (args.place, args.target) else None
        if args.spoil:
            servers.spoil(args.spoil, args.seed, args.hang)
        settings = list(chosen(args, folder, address))

        def new_store(name: str) -> str:
            place = folder if disk is None else disk.place
            return str(place / name) if bucket is None or name == WHOLE else f"s3://{bucket}/{name}"

        found = Campaign(TARGETS[args.target], commands, servers, new_store, random.Random(args.seed), log, disk=disk)
        found.hits, found.aim = Counter(row["stage"] for row in before), frozenset(args.aim)
        for kill in found.run(settings, args.kills):
            kill.seed = args.seed
            kills.append(kill)
            report(len(kills), kill)
    finally:
        commands.close()
        servers.stop()
        if disk is not None and not any(kill.problems for kill in kills):
            disk.unmount()


def report(number: int, kill: Kill) -> None:
    """Print what became of a kill."""
    outcome = "went on" if kill.survived else "run again"
    verdict = f"PROBLEMS: {kill.problems}" if kill.problems else "no problem"
    said = "" if kill.said in ("", "-") else f" [{kill.said}]"
    log(f"{number}: {kill.target} in {kill.stage} of {kill.config}, {outcome}, {verdict}{said}")


def chosen(args: argparse.Namespace, folder: Path, address: str | None) -> list[Setting]:
    """Return the settings of the rounds: every config with every cluster."""
    clusters = {name: f"cluster={{kind: {name}}}" for name in args.clusters}
    if address is not None:
        clusters = {"address": f"cluster={{kind: address, address: {address!r}}}"}
    elif args.set_cluster is False:
        clusters = {"its own": ""}
    place = "S3" if "s3" in (args.place, args.target) else "local"
    place += f", {args.spoil:.0%} of requests spoilt" if args.spoil else ""
    found = []
    for config in args.configs:
        given = small_config(config, folder) if config in CONFIGS else config
        for name, change in clusters.items():
            changes = tuple(filter(None, (change, *args.settings)))
            found.append(Setting(config, given, place, name, changes, 1.0 if place == "local" else S3_SLOWER))
    return found


def small_config(name: str, folder: Path) -> str:
    """Write one of the small configs as a file and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(CONFIGS[name](folder), sort_keys=False))
    return str(path)


def log(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def parse() -> argparse.Namespace:
    """Return the arguments."""
    assert __doc__ is not None
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--target", choices=TARGETS, default="run")
    cli.add_argument("--place", choices=("local", "s3"), default="local")
    cli.add_argument("--kills", type=int, default=20)
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--configs", nargs="+", default=list(CONFIGS))
    cli.add_argument("--clusters", nargs="+", default=["serial", "threads"])
    cli.add_argument("--own-cluster", action="store_false", dest="set_cluster", help="the one that the config says")
    cli.add_argument("--embedded", action="store_true", help="each run starts a Prefect server of its own")
    cli.add_argument("--bare", action="store_true", help="leave Prefect out of the commands")
    cli.add_argument("--cold", action="store_true", help="start each command as a new process")
    cli.add_argument("--aim", nargs="+", default=[], choices=STEPS, metavar="KIND", help="kinds of stages to hit")
    cli.add_argument("--packing", type=float, default=0.0, help="seconds that a pack of partition records takes")
    cli.add_argument("--spoil", type=float, default=0.0, help="share of the requests to S3 that a proxy spoils")
    cli.add_argument("--hang", type=float, default=2.0, help="seconds of a spoilt request without an answer")
    cli.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    cli.add_argument("--folder", type=existing, help="an existing one, where stores and logs go")
    cli.add_argument("--json", type=Path, help="file to which the kills are added")
    cli.add_argument("--table", type=Path, nargs="+", help="print one table of these files, and do nothing else")
    return cli.parse_args()


if __name__ == "__main__":
    main()
