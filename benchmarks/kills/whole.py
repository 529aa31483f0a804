"""The whole campaign of docs/faults.md: every target, one after the other, and the table written into the page.

    python -m benchmarks.kills.whole [--seed 18] [--json kills.json] [--parts run disk ...] [--page docs/faults.md]

A part that `--parts` leaves out stays as it is in the file. Exit code 1 where any kill found a problem.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.kills.__main__ import read_rows
from benchmarks.kills.table import Row, table
from tasks.steps.questions import STEPS

SERIAL = ("--clusters", "serial")
BARE = ("--bare", *SERIAL)  # without Prefect
AIMED = ("pruning", "unit-responses", "units", "unit-pictures", "unit-cards", "network-dissection", "planted-captions")
PACKED = (*BARE, "--packing", "0.3", "--configs", "packed", "--aim", "contributions", "index")
SMALL = ("linked", "tiny", "traced", "decomposed", "described")
PARTS: dict[str, tuple[str, ...]] = {
    "run": ("--target", "run", "--kills", "60", *BARE, "--configs", "dense", "hybrid", "replay"),
    "small": ("--target", "run", "--kills", "80", *BARE, "--configs", *SMALL),
    "command": ("--target", "run", "--kills", "12", *SERIAL, "--configs", "traced", "dense"),
    "threads": (
        "--target",
        "run",
        "--kills",
        "12",
        "--bare",
        "--clusters",
        "threads",
        "--configs",
        "hybrid",
        "described",
    ),
    "disk": ("--target", "disk", "--kills", "28", *BARE),
    "worker": ("--target", "worker", "--kills", "20", "--configs", "tiny", "decomposed"),
    "prefect": ("--target", "prefect", "--kills", "20", *SERIAL, "--configs", "traced", "tiny"),
    "scheduler": ("--target", "scheduler", "--kills", "10", "--configs", "tiny", "traced"),
    "s3": ("--target", "s3", "--kills", "16", *BARE, "--configs", "traced", "replay"),
    "race": ("--target", "race", "--kills", "5", *BARE, "--configs", "linked", "tiny", "decomposed"),
    "run on S3": ("--target", "run", "--place", "s3", "--kills", "8", *BARE, "--configs", "linked", "traced"),
    "aimed": ("--target", "run", "--kills", "16", *BARE, "--configs", "hybrid", "described", "--aim", *AIMED),
    "packed": ("--target", "run", "--kills", "12", *PACKED),
    "packing": ("--target", "run", "--kills", "10", *PACKED),
    "packed late": ("--target", "late", "--kills", "4", *PACKED),
    "packed on S3": ("--target", "run", "--place", "s3", "--kills", "4", *PACKED),
    "packed late on S3": ("--target", "late", "--place", "s3", "--kills", "2", *PACKED),
    "race on S3": ("--target", "race", "--place", "s3", "--kills", "2", *BARE, "--configs", "tiny", "linked"),
}
OPEN, CLOSE = "<!-- campaign -->", "<!-- end of the campaign -->"


def main() -> None:
    """Run the parts and write the table."""
    assert __doc__ is not None
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--seed", type=int, default=18)
    cli.add_argument("--json", type=Path, default=Path("kills.json"))
    cli.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    cli.add_argument("--page", type=Path, help="page to write the table into; default: the table is printed")
    args = cli.parse_args()
    codes = [run_part(part, args.seed, args.json) for part in args.parts]
    rows = read_rows([args.json])
    text = "\n".join(section(rows))
    print(text)
    if args.page is not None:
        write_section(args.page, text)
    sys.exit(max(codes, default=0))


def run_part(part: str, seed: int, file: Path) -> int:
    """Run a part in a process of its own, in place of its kills in the file; return its exit code."""
    kept = [row for row in (read_rows([file]) if file.exists() else []) if row.get("part") != part]
    file.write_text(json.dumps(kept, indent=1))
    print(f"{part}:", flush=True)
    command = [sys.executable, "-m", "benchmarks.kills", *PARTS[part], "--seed", str(seed), "--json", str(file)]
    code = subprocess.run(command, check=False).returncode
    rows = read_rows([file])
    file.write_text(json.dumps([{"part": part, **row} for row in rows], indent=1))
    return code


def section(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the page's section."""
    seeds = sorted({row["seed"] for row in rows})
    yield f"{len(rows)} kills, seed {' and '.join(map(str, seeds))}:"
    yield ""
    yield from table(rows)
    packing = sum(row.get("packing", False) for row in rows)
    yield ""
    yield f"{packing} of them fell while partition records were packed."
    missed = [kind for kind in STEPS if kind not in {row["stage"] for row in rows}]
    yield ""
    hit = len(STEPS) - len(missed)
    yield f"Of {len(STEPS)} kinds of stages, {hit} were hit" + (
        f"; not {', '.join(f'`{kind}`' for kind in missed)}." if missed else "."
    )


def write_section(page: Path, text: str) -> None:
    """Put the section between its marks in a page."""
    found = page.read_text()
    if not re.search(f"{OPEN}.*{CLOSE}", found, flags=re.DOTALL):
        raise ValueError(f"{page}: expected the lines {OPEN} and {CLOSE}, found none; add them")
    page.write_text(re.sub(f"{OPEN}.*{CLOSE}", lambda _: f"{OPEN}\n{text}\n{CLOSE}", found, flags=re.DOTALL))


if __name__ == "__main__":
    main()
