"""Who taught neurons their concepts: what the neuron explorer shows of question 4, and its tables."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.report.blocks import script_json
from tasks.report.concepts.exemplars import Place
from tasks.report.formats import signed_share
from tasks.report.pages import MAX_CSV_ROWS, Image

MAX_THUMBNAIL_BYTES = 3_000_000  # of all data URIs
SHOWN = 5  # classes with a curve
SINCE = 2  # classes named next to a snapshot
REST = "other classes"  # all that do not have a row of their own, together
FROM = 0.005  # share from which a class is named next to a snapshot
OF = ("network", "seed", "layer", "neuron")
COLUMNS = {  # of each table; whatever else a table may hold stays out of the site
    "taught_neurons": (*OF, "operation", "images", "square", "init", "decay", "unrecorded", "outside"),
    "teachers": (*OF, "end", "rank", "sample_id", "key", "class_name", "gamma", "share"),
    "taught_classes": (*OF, "start", "end", "epoch", "class_name", "share"),
}


def _empty(name: str) -> pd.DataFrame:
    """Return a table without rows."""
    return pd.DataFrame({column: pd.Series(dtype="object") for column in (*COLUMNS[name], "picture", "anchor")})


@dataclass(frozen=True)
class Taught:
    """What taught neurons their concepts; shares are of the summed squared preactivations on the neuron's images.

    Attributes
    ----------
    neurons : network, seed, layer, neuron, anchor ("final", or "displacement" where shares are of what training added),
        operation (with a unit for each neuron), images (their number), square (the
        sum of squared preactivations), init, decay, unrecorded, outside (shares: of the initial weights, weight decay,
        steps without a record, and recorded steps outside the window)
    examples : network, seed, layer, neuron, end ("for" or "against"), rank, sample_id, key, class_name, gamma, share,
        picture (key into `pictures`, "" without one)
    classes : network, seed, layer, neuron, start, end (steps of a part of the training), epoch (from 1), class_name,
        share
    pictures : training images; only those that may be shown
    notes : what is left out, and why
    """

    neurons: pd.DataFrame = field(default_factory=lambda: _empty("taught_neurons"))
    examples: pd.DataFrame = field(default_factory=lambda: _empty("teachers"))
    classes: pd.DataFrame = field(default_factory=lambda: _empty("taught_classes"))
    pictures: Mapping[str, Image] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that have rows, with the columns that may leave the store, by name."""
        found = {"taught_neurons": self.neurons, "teachers": self.examples, "taught_classes": self.classes}
        return {name: table[list(COLUMNS[name])] for name, table in found.items() if len(table)}


@dataclass(frozen=True)
class TaughtBlock:
    """What the page shows.

    Attributes
    ----------
    data : for its script, by `NETWORK SEED LAYER:NEURON`
    thumbnails : that it refers to
    notes : what is left out, and why
    """

    data: dict[str, object]
    thumbnails: list[Thumbnail]
    notes: tuple[str, ...]

    @property
    def json(self) -> str:
        """The data as JSON that cannot end the script element around it."""
        return script_json(self.data)


def taught_block(taught: Taught, monitor: pd.DataFrame) -> TaughtBlock:
    """Collect what the explorer shows of each traced neuron.

    Parameters
    ----------
    monitor : as `ConceptResults` describes it, for the steps of the snapshots
    """
    thumbs, left = _thumbnails(taught)
    neurons: dict[str, object] = {}
    for _, own in taught.neurons.iterrows():
        place = str(own["network"]), str(own["seed"]), str(own["layer"])
        examples, classes = (_of(table, own, OF) for table in (taught.examples, taught.classes))
        steps = _steps(_of(monitor, own, OF[:3]))
        neurons[name_of(place, int(own["neuron"]))] = _neuron((own, examples, classes), steps, thumbs)
    notes = [*taught.notes, *([f"{left:,} training images are left out to keep the page small."] if left else [])]
    return TaughtBlock(neurons, unique_thumbnails(thumbs.values()), tuple(notes))


def name_of(place: Place, neuron: int) -> str:
    """Return the name of a neuron in the data of the page."""
    return f"{' '.join(place)}:{neuron}"


def taught_files(taught: Taught) -> dict[str, bytes]:
    """Return the tables as Parquet, by path below the report."""
    files = {}
    for name, table in taught.tables.items():
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False, compression="zstd")
        files[f"tables/concept_{name}.parquet"] = buffer.getvalue()
    return files


def taught_csv(taught: Taught) -> dict[str, pd.DataFrame]:
    """Return the data files of the page: the tables that are short enough for it."""
    return {f"data/concepts_{name}.csv": table for name, table in taught.tables.items() if len(table) <= MAX_CSV_ROWS}


def _of(table: pd.DataFrame, own: "pd.Series[Any]", columns: Sequence[str]) -> pd.DataFrame:  # Any: cells
    """Return the rows of a table that agree with a row in some columns."""
    for column in columns:
        table = table[table[column] == own[column]]
    return table


def _steps(monitor: pd.DataFrame) -> list[int]:
    """Return the step of each snapshot of a layer, -1 where unknown."""
    return [int(step) for step in monitor.drop_duplicates("snapshot").sort_values("snapshot")["step"]]


def _neuron(
    rows: tuple["pd.Series[Any]", pd.DataFrame, pd.DataFrame],  # Any: cells
    snapshots: Sequence[int],
    thumbs: dict[str, Thumbnail],
) -> dict[str, object]:
    """Return what the script shows of a neuron: `rows` are its facts, its examples and its classes."""
    facts, examples, classes = rows
    totals = classes.groupby("class_name", sort=False)["share"].sum()
    names = totals.drop(REST, errors="ignore").abs().sort_values(ascending=False, kind="stable").index.tolist()
    ends = np.sort(classes["end"].unique())
    parts = classes.pivot_table(index="end", columns="class_name", values="share", aggfunc="sum").reindex(ends)
    curves = [[str(name), [0.0, *(round(float(value), 5) for value in parts[name].cumsum())]] for name in names[:SHOWN]]
    return {
        "lead": _lead(facts, totals),
        "steps": [0, *(int(end) for end in ends)],
        "curves": curves,
        "snapshots": [step for step in snapshots if step >= 0],
        "since": _since(classes, snapshots),
        "for": _listed(examples[examples["end"] == "for"], thumbs),
        "against": _listed(examples[examples["end"] == "against"], thumbs),
    }


def _lead(facts: "pd.Series[Any]", totals: "pd.Series[Any]") -> str:  # Any: cells
    """Say in a sentence who taught a neuron."""
    best = totals.drop(REST, errors="ignore").sort_values(ascending=False, kind="stable")
    named = [f"{name} ({signed_share(float(value))})" for name, value in best.head(SINCE).items() if value > 0]
    classes = f"Most from class {' and '.join(named)}" if named else "No class pushed this neuron on the whole"
    worst = float(best.iloc[-1]) if len(best) else 0.0
    against = f", most against it class {best.index[-1]} ({signed_share(worst)})" if worst < 0 else ""
    added = facts["anchor"] == "displacement"
    start = "" if added else f"; the initial weights {signed_share(float(facts['init']))}"
    of = (
        "what training added to its response before the nonlinearity, squared"
        if added
        else ("its squared response before the nonlinearity")
    )
    decay = f", weight decay {signed_share(float(facts['decay']))}" if facts["decay"] else ""
    return (
        f"{classes}{against}{start}{decay}. Shares are of {of}, on its {int(facts['images'])} images above; they are "
        f"updates of layer {facts['operation']}."
    )


def _since(classes: pd.DataFrame, snapshots: Sequence[int]) -> list[str]:
    """Say for each snapshot which classes taught most since the one before."""
    said, before = [], 0
    for step in snapshots:
        if step < 0:
            said.append("")
            continue
        mine = classes[(classes["start"] >= before) & (classes["end"] <= step)]
        totals = mine.groupby("class_name", sort=False)["share"].sum().drop(REST, errors="ignore")
        order = totals.abs().sort_values(ascending=False, kind="stable").index
        named = [f"{name}: {signed_share(float(totals[name]))}" for name in order[:SINCE] if abs(totals[name]) >= FROM]
        said.append(", ".join(named))
        before = step
    return said


def _listed(examples: pd.DataFrame, thumbs: dict[str, Thumbnail]) -> list[list[str]]:
    """List digest ("" without an image), id, class and share of training images."""
    columns = (examples.sort_values("rank")[name] for name in ("picture", "sample_id", "class_name", "share"))
    return [
        [thumbs[picture].digest if picture in thumbs else "", f"id {sample}", str(name), signed_share(float(value))]
        for picture, sample, name, value in zip(*columns, strict=True)
    ]


def _thumbnails(taught: Taught) -> tuple[dict[str, Thumbnail], int]:
    """Make thumbnails in order of rank while they fit, and count those that do not."""
    keys = [
        key for key in taught.examples.sort_values("rank", kind="stable")["picture"].unique() if key in taught.pictures
    ]
    made: dict[str, Thumbnail] = {}
    room = MAX_THUMBNAIL_BYTES
    for number, key in enumerate(keys):
        thumb = thumbnail(taught.pictures[key])
        if len(thumb.uri) > room:
            return made, len(keys) - number
        made[key] = thumb
        room -= len(thumb.uri)
    return made, 0
