"""Time and memory at ImageNet's size, from drawn features: selection, the streaming statistics, what state costs.

    python -m benchmarks.scale [--samples 1281167] [--classes 1000] [--halvings 4] [--folder DIR] [--figures DIR]

Writes a data set of linked pictures and the stages that a ResNet-50 would leave (see `scale_data`), at full size, at
halves of it by fewer classes, and at two sizes by fewer samples per class. At each size every piece of work runs in a
process of its own with two workers. Prints a table of time, bytes read and peak memory, exponents of time and memory
against n, and what partitions cost without work; deletes what it wrote. Full size takes 15 GB of disk and an hour.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale_data import CLASSES, SAMPLES, class_sizes, make_pictures, make_weights
from benchmarks.scale_figures import LIMIT, draw
from benchmarks.scale_pieces import PIECES
from benchmarks.scale_watch import slope, watch

BY_CLASSES, PER_CLASS = "fewer classes", "fewer per class"
OVERHEAD = "overhead"
ORDER = ("plan", *PIECES)
MEASURED = tuple(name for name in ORDER if not name.startswith("write"))
FEWER = (16, 4)  # parts of the samples per class

Row = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Size:
    """One store: its axis, how many classes and samples."""

    axis: str
    classes: int
    samples: int

    @property
    def name(self) -> str:
        """The folder."""
        return f"{self.classes}-classes-{self.samples}"


def sizes_of(samples: int, classes: int, halvings: int) -> list[Size]:
    """Return the sizes: two small ones, where mistakes show soon, the full one, halves between, fewer per class."""
    whole = class_sizes(samples, classes)
    counts = [classes >> step for step in reversed(range(halvings + 1)) if classes >> step]
    counts = [*counts[:-1][:2], classes, *counts[:-1][2:]]
    by_classes = [Size(BY_CLASSES, count, int(whole[:count].sum())) for count in counts]
    return by_classes + [Size(PER_CLASS, classes, samples // part) for part in FEWER if samples // part >= 20 * classes]


def measure(folder: Path, size: Size, donor: Size | None, options: argparse.Namespace) -> Iterator[Row]:
    """Make a size's pictures and run all pieces on them, in a process of its own with its workers."""
    sizes = class_sizes(
        *((options.samples, options.classes) if size.axis == BY_CLASSES else (size.samples, size.classes))
    )
    make_pictures(folder / size.name / "data", sizes[: size.classes])
    arguments = [str(folder / size.name), "--workers", str(options.workers), "--memory", options.memory]
    if donor is not None:
        arguments += ["--donor", str(folder / donor.name)]
    for line in watch("benchmarks.scale_pieces", arguments, folder / "log.txt", limit=options.limit):
        if line["piece"] != "start":
            yield {**asdict(size), **line}


def table(rows: Sequence[Row]) -> str:
    """Return the measurements as a Markdown table, a line per size and piece."""
    head = "| piece | axis | classes | n | wall s | CPU s | read GB | main MB | worker MB | together MB |"
    lines = [head, "| --- | --- " + "| ---: " * 8 + "|"]
    for row in sorted(rows, key=lambda row: (ORDER.index(row["piece"]), row["axis"], row["samples"])):
        times = f"{row['wall']:.1f} | {row['cpu']:.1f} | {row['read'] / 1e9:.2f}"
        peaks = f"{row['main']:.0f} | {row['worker']:.0f} | {row['together']:.0f}"
        counts = f"{row['classes']:,} | {row['samples']:,}"
        lines.append(f"| {row['piece']} | {row['axis']} | {counts} | {times} | {peaks} |")
    return "\n".join(lines)


def exponents(rows: Sequence[Row]) -> str:
    """Return fitted exponents of time, bytes read and peak memory, their standard errors, and the largest peak."""
    lines = [
        "| piece | axis | CPU time | read | peak memory | largest peak, MB |",
        "| --- | --- " + "| ---: " * 4 + "|",
    ]
    for piece in MEASURED:
        for axis in (BY_CLASSES, PER_CLASS):
            # The full size ends both axes.
            whole = max(row["samples"] for row in rows)
            mine = [r for r in rows if r["piece"] == piece and (r["axis"] == axis or r["samples"] == whole)]
            if len(mine) < 3:
                continue
            n = [row["samples"] for row in mine]
            fits = [slope(n, [row[key] for row in mine]) for key in ("cpu", "read", "together")]
            peak = max(row["together"] for row in mine)
            lines.append(
                f"| {piece} | {axis} | "
                + " | ".join(f"{round(fit, 2) + 0.0:.2f} ± {error:.2f}" for fit, error in fits)
                + f" | {peak:.0f} |"
            )
    return "\n".join(lines)


def overheads(rows: Sequence[Row]) -> str:
    """Return what partitions cost without work, as a Markdown table."""
    lines = ["| pool | what | items | ms each, wall | ms each, CPU | added MB |", "| --- | --- " + "| ---: " * 4 + "|"]
    for row in (row for row in rows if row["piece"] == OVERHEAD):
        numbers = " | ".join(f"{row[key] * 1000:.2f}" if key in row else "" for key in ("wall", "cpu"))
        added = f"{row['added_mb']:.0f}" if "added_mb" in row else ""
        lines.append(f"| {row['pool']} | {row['what']} | {row['items']:,} | {numbers} | {added} |")
    return "\n".join(lines)


def run(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Measure every size, and overheads at the full one; of what was written only the largest size is kept."""
    make_weights(folder / "resnet50.pth", "resnet50")
    largest: Size | None = None  # by classes, where of two sizes one begins with the other
    for size in sizes_of(options.samples, options.classes, options.halvings):
        yield from measure(folder, size, largest if size.axis == BY_CLASSES else None, options)
        smaller = size
        if largest is None or size.samples > largest.samples:
            largest, smaller = size, largest or size
        if smaller != largest:
            shutil.rmtree(folder / smaller.name)
        if size.samples == options.samples:
            for line in watch("benchmarks.scale_overhead", [str(folder / size.name)], folder / "log.txt"):
                yield {"piece": OVERHEAD, **line}


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--samples", type=int, default=SAMPLES)
    cli.add_argument("--classes", type=int, default=CLASSES)
    cli.add_argument("--halvings", type=int, default=4, help="of the number of classes")
    cli.add_argument("--workers", type=int, default=2)
    cli.add_argument("--memory", default="3GB", help="of a worker: what the cluster's nanny allows")
    cli.add_argument("--limit", type=float, default=LIMIT, help="MB that all processes may hold together")
    cli.add_argument("--folder", type=Path, help="on a disk with room; default: a temporary one")
    cli.add_argument("--figures", type=Path, help="where to put scale-time.png and scale-memory.png")
    cli.add_argument("--again", type=Path, help="what an earlier run printed: show it, measure nothing")
    options = cli.parse_args(given)
    rows = _read(options.again) if options.again else _measured(options)
    pieces = [row for row in rows if row["piece"] != OVERHEAD]
    print(table(pieces), exponents(pieces), overheads(rows), sep="\n\n")
    if options.figures is not None:
        draw(pieces, options.figures)


def _measured(options: argparse.Namespace) -> list[Row]:
    """Run in a folder of our own, print every row as soon as it is there, and delete the folder."""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder, rows = Path(tempfile.mkdtemp(dir=options.folder, prefix="scale-")), []
    try:
        for row in run(folder, options):
            rows.append(row)
            print(json.dumps(row), flush=True)
    except RuntimeError:
        print((folder / "log.txt").read_text(), file=sys.stderr)
        raise
    finally:
        shutil.rmtree(folder)
    return rows


def _read(path: Path) -> list[Row]:
    """Return the rows among what a run printed."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()
