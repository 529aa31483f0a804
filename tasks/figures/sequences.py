"""Pictures of sequences: tokens as cells, a colour for each token; features as a heat map, a column a step."""

import numpy as np
from numpy.typing import NDArray

SIDE = 96  # pixels of a picture
# Colours that people with any colour vision distinguish (Okabe & Ito); further tokens get darker ones.
COLOURS = np.array(
    [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (240, 228, 66)], float
)
SHADES = 4
EMPTY = 255


def draw_sequence(steps: NDArray[np.floating], side: int = SIDE) -> NDArray[np.uint8]:
    """Draw a sequence.

    Parameters
    ----------
    steps : (L, 1) tokens, 0 is padding; or (L, d + 1) features, the last number 1 for a step and 0 for padding
    side : height and width in pixels

    Returns
    -------
    (side, side, 3) uint8
    """
    cells = _tokens(steps[:, 0]) if steps.shape[1] == 1 else _features(steps)
    rows = np.arange(side) * cells.shape[0] // side
    columns = np.arange(side) * cells.shape[1] // side
    return np.ascontiguousarray(cells[rows][:, columns])


def _tokens(tokens: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return tokens in a square, row by row."""
    width = int(np.ceil(np.sqrt(len(tokens))))
    found = np.full((width * width, 3), EMPTY, np.uint8)
    numbers = tokens[tokens > 0].astype(np.int64) - 1
    shade = 1 - 0.2 * (numbers // len(COLOURS) % SHADES)
    found[: len(numbers)] = COLOURS[numbers % len(COLOURS)] * shade[:, None]
    return found.reshape(width, width, 3)


def _features(steps: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return features (d, L): the smallest of the sequence is black, the largest white, padding light blue."""
    values, there = steps[:, :-1], steps[:, -1] > 0
    low, high = values[there].min(initial=0), values[there].max(initial=0)
    levels = np.clip((values - low) / max(float(high - low), 1e-12), 0, 1) * 255
    found = np.repeat(levels.T[..., None].astype(np.uint8), 3, axis=2)
    found[:, ~there] = (222, 235, 247)
    return found
