"""Reading of scattered rows of a stored array."""

import numpy as np
from numpy.typing import NDArray

from storage.stages import FinishedStage


def read_rows(stage: FinishedStage, name: str, rows: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return rows of an array in any order; only chunks with these rows are read, one at a time."""
    layout = stage.layout.arrays[name]
    found = np.empty((len(rows), *layout.shape[1:]), layout.dtype)
    for chunk in np.unique(rows // layout.chunk).tolist():
        start = chunk * layout.chunk
        here = (rows >= start) & (rows < start + layout.chunk)
        found[here] = stage.read(name, start, min(start + layout.chunk, layout.shape[0]))[rows[here] - start]
    return found
