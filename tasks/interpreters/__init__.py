"""Interpretation methods, which find the relevant features of a network for a class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.interpreters import ice
from tasks.interpreters.features import Features

__all__ = ["INTERPRETERS", "Features", "Interpreter"]


@dataclass(frozen=True)
class Interpreter:
    """One method as plain functions; maps are (n, h, w, d), codes (n, h, w, r), `arrays` as in `Features`.

    Parameters
    ----------
    fit : (maps, *, seed, **params) -> Features of one class
    shapes : (n_channels, **params) -> upper bound of each array's shape; the first array's first axis counts the
        features
    encode : (arrays, maps) -> codes float32, held-out maps in terms of the features
    reconstruct : (arrays, codes) -> maps float32
    columns : (arrays, codes) -> (n h w, c) float64 for the shape distance
    check : (**params) -> None, raises ValueError that names a bad parameter
    """

    fit: Callable[..., Features]
    shapes: Callable[..., dict[str, tuple[int, ...]]]
    encode: Callable[[ice.Arrays, NDArray[Any]], NDArray[np.float32]]  # Any: float16 or float32 maps
    reconstruct: Callable[[ice.Arrays, NDArray[np.float32]], NDArray[np.float32]]
    columns: Callable[[ice.Arrays, NDArray[np.float32]], NDArray[np.float64]]
    check: Callable[..., None]


INTERPRETERS: dict[str, Interpreter] = {
    "ice": Interpreter(
        fit=ice.fit,
        shapes=ice.shapes,
        encode=ice.encode,
        reconstruct=ice.reconstruct,
        columns=ice.columns,
        check=ice.check,
    ),
}
