"""The rest of a segment of a layer with factors that explain few steps, as with a penalty on the weights."""

from torch import Tensor

from tasks.recording.codes import Encoded, encode, smallest_code

FEW = 4  # steps of a segment that factors do not explain, before its updates are kept whole


def few_explained(odd: int, rows: int) -> bool:
    """Return whether factors do not explain most steps: the weights of each then take twice what an update takes."""
    return odd >= FEW and 2 * odd >= rows


class WholeRows:
    """Encodes a weight's updates one by one. Holds the weight once more.

    Parameters
    ----------
    weight : the present one
    tolerance : largest error of an update, relative to it

    Attributes
    ----------
    code : of the updates; EXACT keeps them in the weight's own dtype
    """

    def __init__(self, weight: Tensor, tolerance: float) -> None:
        self._before = weight.to("cpu", copy=True)
        self.code = smallest_code(tolerance, weight.shape, weight.element_size(), 0)

    def next(self, weight: Tensor) -> Encoded:
        """Return the record of the update to the present weight."""
        now = weight.to("cpu", copy=True)
        encoded = encode(now - self._before, self.code)
        self._before = now
        return encoded
