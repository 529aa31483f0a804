"""The table of a hybrid segment: form and place of each record, and the settings of the step that made it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from storage.documents import DamagedError
from storage.updates.records import Place

TABLE = "records.parquet"

# Forms of a record: of an update, or of a step that factors explain.
FLOAT16, INT16, INT8 = "float16", "int16", "int8"  # the update, rounded
LEVELS = "levels"  # the update in multiples of a step per row, compressed
PLAIN = "plain"  # the update in the weights' dtype
FACTORS = "factors"  # inputs and output gradients
HALVES = "halves"  # these in 16 bits, compressed
WEIGHTS = "weights"  # weights and momentum after the row: no factors explain its update
STILL = "still"  # no update
FORMS = (FLOAT16, INT16, INT8, LEVELS, PLAIN, FACTORS, HALVES, WEIGHTS, STILL)
FACTORED = (FACTORS, HALVES)  # the gradient of the step
EXPLAINED = (FACTORS, HALVES, STILL)  # the optimiser's recurrences go on
ROUNDED = (FLOAT16, INT16, INT8, LEVELS, PLAIN)  # the update alone


@dataclass(frozen=True)
class Settings:
    """The settings of a step of SGD for one parameter, as torch names them.

    Parameters
    ----------
    scale : factor from the stored factors to the gradient that the optimiser took, as by clipping
    fresh : whether the momentum began at this step, without dampening
    """

    lr: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    scale: float = 1.0
    fresh: bool = False


@dataclass(frozen=True)
class Record:
    """A row of a parameter.

    Parameters
    ----------
    form : one of FORMS
    place : of the bytes
    settings : of the step, for factors, and for weights after one step of the optimiser
    inputs, gradients : shapes of the factors, else empty
    momentum : whether the record has the momentum after the weights
    """

    form: str
    place: Place
    settings: Settings = Settings()
    inputs: tuple[int, ...] = ()
    gradients: tuple[int, ...] = ()
    momentum: bool = False

    @property
    def stepped(self) -> bool:
        """Whether it is known what the optimiser's step made of the momentum, though not of which gradient."""
        return self.form == WEIGHTS and self.settings != Settings()


def table_bytes(records: Mapping[str, Sequence[Record]]) -> bytes:
    """Return the records of each parameter, in the order of the rows, as a Parquet table."""
    flat = [(name, row, record) for name, rows in records.items() for row, record in enumerate(rows)]
    columns: dict[str, pa.Array] = {
        "parameter": pa.array([name for name, *_ in flat], pa.string()),
        "row": pa.array([row for _, row, _ in flat], pa.int64()),
        "form": pa.array([record.form for *_, record in flat], pa.string()),
        "momentum_kept": pa.array([record.momentum for *_, record in flat], pa.bool_()),
    }
    for key in ("chunk", "offset", "size"):
        columns[key] = pa.array([getattr(record.place, key) for *_, record in flat], pa.int64())
    for key in ("inputs", "gradients"):
        columns[key] = pa.array([getattr(record, key) for *_, record in flat], pa.list_(pa.int64()))
    for entry in fields(Settings):
        kind = pa.bool_() if isinstance(entry.default, bool) else pa.float64()
        columns[entry.name] = pa.array([getattr(record.settings, entry.name) for *_, record in flat], kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def read_table(data: bytes, what: str) -> dict[str, list[Record]]:
    """Return the records of each parameter that `table_bytes` stored.

    Raises
    ------
    DamagedError : not such a table; the text begins with `what`
    """
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
    except (OSError, ValueError) as error:
        raise DamagedError(f"{what}: expected a table of records, found another: {error}") from error
    found: dict[str, list[Record]] = {}
    names = [entry.name for entry in fields(Settings)]
    for row in rows:
        found.setdefault(row["parameter"], []).append(
            Record(
                row["form"],
                Place(row["chunk"], row["offset"], row["size"]),
                Settings(**{name: row[name] for name in names}),
                tuple(row["inputs"]),
                tuple(row["gradients"]),
                row["momentum_kept"],
            )
        )
    return found
