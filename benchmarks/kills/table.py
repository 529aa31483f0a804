"""The table of a campaign, or of several."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]  # Any: what a Kill holds, as JSON
NAMES = {"s3": "S3 server", "prefect": "Prefect server", "worker": "Dask worker", "scheduler": "Dask scheduler"}
HEADS = (
    *("killed", "where", "kills", "went on by itself", "was run again"),
    *("same bytes", "no problem of any kind", "longest wait for a claim"),
)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a Markdown table, a row per target and place, and what was hit."""
    yield line(*HEADS)
    yield line(*("---" for _ in HEADS))
    for target, place in sorted({(row["target"], row["place"]) for row in rows}):
        here = [row for row in rows if (row["target"], row["place"]) == (target, place)]
        survived = sum(row["survived"] for row in here)
        same, clean = sum(row["same_bytes"] for row in here), sum(not row["problems"] for row in here)
        shares = (f"{count} of {len(here)}" for count in (same, clean))
        waited = max(row["waited"] for row in here)
        yield line(
            NAMES.get(target, target), place, len(here), survived, len(here) - survived, *shares, f"{waited:.1f} s"
        )
    for text, key in (("They fell during", "stage"), ("Their configs were", "config")):
        counts = Counter(row[key] for row in rows)
        yield ""
        yield f"{text}: {', '.join(f'`{name}` {count}' for name, count in counts.most_common())}."


def line(*cells: object) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"
