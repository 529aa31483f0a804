"""How the lines of a figure differ: colours, symbols and dashes, and the numbers that they are drawn from."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Okabe and Ito's colours: distinct under the common kinds of colour blindness; all at least 3 : 1 on white.
COLOURS = ("#0072B2", "#C44E00", "#00795A", "#A0488A", "#5B5B5B", "#8A6A00")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
DASHES = ("solid", "5px,2px", "8px,3px,2px,3px", "2px,2px", "10px,3px", "12px,2px,2px,2px")
