"""layerlore next to its peers in one run: quality and cost, same network, same subsets, one thread, CPU time.

    python -m benchmarks.peers [--only attribution shape ...] [--rounds 3] [--quick] [--no-install] [--folder FOLDER]

Makes an environment in `--folder` that sees the packages of the running one, torch among them, and installs the peers
there by their names; the running environment stays as it is. Each comparison is then a process of that environment.
Its result is kept in the folder. docs/peers.md is written from the results of all comparisons; with `--quick` (small
sizes, for a test) it is printed instead. `--no-install` takes what is installed in the running environment.
"""

import argparse
import importlib
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.environment import make_environment, peers_here
from benchmarks.peers.page import PAGE, page_text, replace_figures
from benchmarks.peers.sections import Section

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {  # by name: its module
    "attribution": "benchmarks.peers.attribution",
    "shape": "benchmarks.peers.shape",
    "nmf": "benchmarks.peers.nmf",
    "extraction": "benchmarks.peers.extraction",
    "costs": "benchmarks.peers.costs",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Make the environment, run the comparisons there, and write the page."""
    args = parse()
    if args.inside:
        inside(args)
        return
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = Path(sys.executable) if args.no_install else make_environment(folder)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    for name in args.only:
        command = [str(python), "-m", "benchmarks.peers", "--inside", "--only", name]
        command += ["--folder", str(folder), "--rounds", str(args.rounds), *(["--quick"] if args.quick else [])]
        print(f"{name} ...", flush=True)
        if subprocess.run(command, env=environment, cwd=ROOT).returncode:
            sys.exit(f"peers: {name} did not end well; its error is above")
    files = {name: file_of(folder, name, quick=args.quick) for name in SECTIONS}
    if missing := [name for name, file in files.items() if not file.exists() and not args.quick]:
        sys.exit(f"peers: expected results of all comparisons, found none of {', '.join(missing)}; run these too")
    text = page_text({name: Section.read(file) for name, file in files.items() if file.exists()})
    if args.quick:
        print(text)
    else:
        PAGE.write_text(replace_figures(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
        print(f"written: {PAGE.relative_to(ROOT)}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="comparisons to make again")
    cli.add_argument("--rounds", type=int, default=3, help="calls of each side; their median is printed")
    cli.add_argument("--quick", action="store_true", help="small sizes, and the page printed")
    cli.add_argument("--no-install", action="store_true", help="peers of the running environment only")
    cli.add_argument("--folder", type=Path, default=ROOT / "build" / "peers")
    cli.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return cli.parse_args()


def file_of(folder: Path, name: str, *, quick: bool) -> Path:
    """Return the file of a comparison's result."""
    return folder / f"{name}{'-quick' if quick else ''}.json"


def inside(args: argparse.Namespace) -> None:
    """Make one comparison in this process."""
    import torch

    torch.set_num_threads(1)
    (name,) = args.only
    section: Section = importlib.import_module(SECTIONS[name]).measure(quick=args.quick, rounds=args.rounds)
    section.peers = [asdict(peer) for peer in peers_here()]
    section.write(file_of(args.folder, name, quick=args.quick))


if __name__ == "__main__":
    main()
