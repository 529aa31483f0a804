"""The maps that features are learned from: as an activations stage stores them, or made again by forward passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.steps.common.activations import activations_layout, batch_size, open_split
from tasks.steps.common.rows import read_rows
from tasks.steps.common.samples import read_positions
from tasks.steps.common.shapes import Shapes
from tasks.steps.interpretation.method import Maps

if TYPE_CHECKING:
    import torch

STORED, RECOMPUTE = "stored", "recompute"


def read_apart(stage: FinishedStage, rows: NDArray[np.int64]) -> Maps | None:
    """Return the tokens set apart (n, k, d) of samples of an activations stage, None where it has none; float32."""
    if "apart" not in stage.layout.arrays:
        return None
    return read_rows(stage, "apart", rows).astype(np.float32)


def passes_note(label: str, passes: int) -> str:
    """Return the line of a plan on maps that are made again."""
    return f"{label}: `maps: recompute` takes up to {passes} passes of the network over the coreset"


class CoresetMaps:
    """The maps of the samples of an activations stage.

    Parameters
    ----------
    store, spec : the activations
    recompute : the network makes the maps at every reading; in the same type, they are those of the store up to
        rounding, which depends on the images of a batch
    device : device of the network

    Attributes
    ----------
    shape : (h, w, d) of one sample
    chunk : samples of a chunk of stored maps, also where maps are not stored
    """

    def __init__(self, store: Store, spec: StageSpec, *, recompute: bool, device: torch.device) -> None:
        self._store, self._spec, self._recompute, self._device = store, spec, recompute, device
        self._stage: FinishedStage = open_finished(store, spec)
        h, w, d = self._stage.summary["map"]
        self.shape: tuple[int, int, int] = (h, w, d)
        arrays = self._stage.layout.arrays
        shapes = Shapes((), (d, h, w), arrays["logits"].shape[1], 0)
        stored = activations_layout(self._stage.summary["samples"], shapes, str(spec.parameters["dtype"]))
        self.chunk = stored.arrays["maps"].chunk

    def read(self, rows: NDArray[np.int64]) -> Maps:
        """Return the maps of samples (n, h, w, d) in float32."""
        return self.read_parts(rows)[0]

    def read_parts(self, rows: NDArray[np.int64]) -> tuple[Maps, Maps | None]:
        """Return the maps of samples (n, h, w, d), and the tokens set apart (n, k, d) if there are any, in float32."""
        if not self._recompute:
            return read_rows(self._stage, "maps", rows).astype(np.float32), read_apart(self._stage, rows)
        size = batch_size(tuple(self._stage.summary["input"]), str(self._device))
        parts = [self._forward(rows[start : start + size]) for start in range(0, len(rows), size)]
        apart = [others for _, others in parts if others is not None]
        return np.concatenate([maps for maps, _ in parts]), np.concatenate(apart) if apart else None

    def _forward(self, rows: NDArray[np.int64]) -> tuple[Maps, Maps | None]:
        """Return maps and tokens set apart of a batch, rounded to the type of stored ones."""
        from tasks.capture import capture_parts, to_storage_dtype

        layer, split = str(self._spec.parameters["layer"]), str(self._spec.parameters["split"])
        images = read_positions(self._store, self._spec, split, rows)
        maps, apart, _ = capture_parts(open_split(self._store, self._spec, self._device), images)
        dtype = str(self._spec.parameters["dtype"])
        others = None if apart is None else to_storage_dtype(apart, dtype, layer, rows).astype(np.float32)
        return to_storage_dtype(maps, dtype, layer, rows).astype(np.float32), others
