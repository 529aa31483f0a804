"""The table of a campaign, or of several."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]  # Any: what a Kill holds, as JSON


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a Markdown table, a row per target and place."""
    yield "| killed | where | kills | went on by itself | was run again | same bytes | longest wait for a claim |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for target, place in sorted({(row["target"], row["place"]) for row in rows}):
        here = [row for row in rows if (row["target"], row["place"]) == (target, place)]
        survived = sum(row["survived"] for row in here)
        same = sum(row["identical"] for row in here)
        waited = max(row["waited"] for row in here)
        yield (
            f"| {target} | {place} | {len(here)} | {survived} | {len(here) - survived} | {same} of {len(here)} "
            f"| {waited:.1f} s |"
        )
    stages = Counter(row["stage"] for row in rows)
    yield ""
    yield "They fell during: " + ", ".join(f"{stage} {count}" for stage, count in stages.most_common()) + "."
