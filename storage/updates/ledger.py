"""The ledger of a segment, for any kind of archive: a Parquet table with a row for each step."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.documents import DamagedError
from storage.updates.writer import Written

Ids = NDArray[np.int64]

LEDGER = "ledger.parquet"
NORM, DIGEST, PROBES, STILLS = "norm/", "digest/", "probes/", "still/"  # prefixes of a layer's name
FIELDS: dict[str, pa.DataType] = {
    "step": pa.int64(),
    "row": pa.int64(),
    "recorded": pa.bool_(),
    "epoch": pa.int64(),
    "label": pa.int64(),
    "lr": pa.float64(),
    "lrs": pa.list_(pa.float64()),
    "clip": pa.float64(),
    "loss": pa.float64(),
    "augmentation": pa.int64(),
    "examples": pa.list_(pa.int64()),
    "ghosts": pa.list_(pa.int64()),
}


@dataclass(frozen=True)
class Entry:
    """A row of the ledger: the facts about a step.

    Parameters
    ----------
    step : index of the update, from 0
    row : row of the segment's arrays; the steps of a gap share one
    recorded : whether the row is this step's update alone
    epoch, label : epoch and label from the training loop; label -1 for several classes
    lr, lrs : learning rate of the first group of parameters, and of each
    clip : factor that multiplied the gradient; 1.0 for none
    loss : loss before the update; NaN if the loop did not give it
    augmentation : seed of the augmentation, or -1
    examples, ghosts : ids of the samples in the batch's order
    """

    step: int
    row: int
    recorded: bool
    epoch: int
    label: int
    lrs: tuple[float, ...]
    clip: float
    loss: float
    augmentation: int
    examples: Ids
    ghosts: Ids

    @property
    def lr(self) -> float:
        """The learning rate of the first group."""
        return self.lrs[0]


def ledger_bytes(entries: Sequence[Entry], written: Written) -> bytes:
    """Return the ledger of a segment: the columns of FIELDS, and `norm/<layer>` and `digest/<layer>` of each layer.

    The norm is that of the weight's update; the digest (`weights_digest`) is that of weight and bias after the step.
    The last step of a gap has the norm and digest of the whole gap, its other steps NaN and 0. `probes/<layer>` has
    projections of the update on random signs, where the kind of archive keeps them; none within a gap. `still/<layer>`
    says whether the row left the layer's weights as they were, where digests of other parts of them do not show this;
    1 for yes, 0 for no, -1 where it is not known.
    """
    columns = {name: pa.array([getattr(e, name) for e in entries], kind) for name, kind in FIELDS.items()}
    rows = np.array([e.row for e in entries], np.int64)
    last = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
    for layer, norms in written.norms.items():
        columns[NORM + layer] = pa.array(np.where(last, np.array(norms, np.float64)[rows], np.nan), pa.float64())
    for layer, digests in written.digests.items():
        columns[DIGEST + layer] = pa.array(np.where(last, np.array(digests, np.uint64)[rows], 0), pa.uint64())
    for layer, probes in written.probes.items():
        cells = [probes[row] if ends else [] for row, ends in zip(rows, last, strict=True)]
        columns[PROBES + layer] = pa.array(cells, pa.list_(pa.float64()))
    for layer, stills in written.stills.items():
        columns[STILLS + layer] = pa.array(np.where(last, np.array(stills, np.int8)[rows], 0), pa.int8())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def read_ledger(data: bytes, what: str) -> pd.DataFrame:
    """Return the table that `ledger_bytes` made; examples and ghosts are arrays of int64.

    Raises
    ------
    DamagedError : not a ledger; the text begins with `what`
    """
    try:
        table = pq.read_table(io.BytesIO(data)).to_pandas()
    except (OSError, ValueError) as error:
        raise DamagedError(f"{what}: expected a ledger, found another table: {error}") from error
    assert isinstance(table, pd.DataFrame)
    return table


def first_not_finite(norms: Mapping[str, Sequence[float]]) -> tuple[int, str] | None:
    """Return the first row whose update is not finite and its first such layer, by the norms of each layer's rows."""
    odd = {layer: np.flatnonzero(~np.isfinite(values)) for layer, values in norms.items()}
    found = [(int(rows[0]), layer) for layer, rows in odd.items() if len(rows)]
    return min(found, key=lambda one: one[0]) if found else None


def row_runs(ledger: pd.DataFrame) -> list[tuple[range, range, bool]]:
    """Return the parts of a segment as (rows, steps, recorded): each run of recorded steps, and each gap."""
    found: list[tuple[range, range, bool]] = []
    for step, row, recorded in zip(ledger["step"], ledger["row"], ledger["recorded"], strict=True):
        if found and found[-1][2] == recorded and (recorded or row in found[-1][0]):
            rows, steps, _ = found[-1]
            found[-1] = (range(rows.start, row + 1), range(steps.start, step + 1), bool(recorded))
        else:
            found.append((range(row, row + 1), range(step, step + 1), bool(recorded)))
    return found
