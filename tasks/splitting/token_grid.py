"""The grid of patches that tokens of an image stand for, and the tokens that stand for no patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_PROBES = 96  # probed rows, and columns, of an image
PROBES = 16  # images in a forward pass, which ends at the first layer of tokens
CHANGED = 1e-5  # of the largest change of a token; less is rounding, more may be hidden by chance


class _Reached(Exception):  # noqa: N818  # not an error: it ends a run at the first tokens
    """An exception that ends a run and carries tokens."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens


@dataclass(frozen=True)
class TokenGrid:
    """Which tokens are patches of an image.

    Attributes
    ----------
    rows, columns : of the grid
    cells : (rows * columns,) the token of each cell, row by row
    apart : the tokens that are not a patch: class and register tokens
    """

    rows: int
    columns: int
    cells: tuple[int, ...]
    apart: tuple[int, ...] = ()

    @classmethod
    def first_apart(cls, rows: int, columns: int, n_tokens: int) -> TokenGrid:
        """Return a grid whose patches are the last tokens, row by row.

        Raises
        ------
        ValueError : there are more cells than tokens
        """
        apart = n_tokens - rows * columns
        if apart < 0:
            raise ValueError(f"expected a grid of at most the {n_tokens} tokens of the layer, found {rows} x {columns}")
        return cls(rows, columns, tuple(range(apart, n_tokens)), tuple(range(apart)))

    @property
    def n_tokens(self) -> int:
        """Return the number of tokens."""
        return len(self.cells) + len(self.apart)

    @property
    def order(self) -> list[int]:
        """Return the place of each token among the cells, followed by the tokens apart."""
        where = {token: place for place, token in enumerate((*self.cells, *self.apart))}
        return [where[token] for token in range(self.n_tokens)]

    def words(self) -> str:
        """Return the grid in words."""
        apart = f"{len(self.apart)} token{'s' if len(self.apart) > 1 else ''} set apart" if self.apart else ""
        return ", ".join(filter(None, (f"{self.rows} x {self.columns} patches", apart)))


def find_grid(model: nn.Module, example: Tensor, n_tokens: int) -> TokenGrid | None:
    """Find the patch of the image that each token stands for.

    Rows and columns of the image are changed, one at a time, and the first tokens that any module is called with show
    which of them depend on it. Tokens that depend on no pixel there are set apart.

    Parameters
    ----------
    model : in evaluation mode
    example : (n, C, H, W), of which the first image is changed; on the model's device
    n_tokens : number of tokens of the layer

    Returns
    -------
    None where tokens do not form rows and columns, such as those of a network without images
    """
    if example.ndim != 4 or n_tokens < 2:
        return None
    rows, columns = (_extents(model, example[:1], n_tokens, axis) for axis in (2, 3))
    if rows is None or columns is None:
        return None
    return _grid(rows, columns)


Extent = tuple[int, int]  # first and last probed row (or column) that a token depends on


def _grid(rows: list[Extent | None], columns: list[Extent | None]) -> TokenGrid | None:
    """Return the grid of tokens with these extents; None unless each cell has one token."""
    across = {extent: index for index, extent in enumerate(sorted({one for one in rows if one}))}
    along = {extent: index for index, extent in enumerate(sorted({one for one in columns if one}))}
    cells: dict[int, int] = {}
    apart = []
    for token, (row, column) in enumerate(zip(rows, columns, strict=True)):
        if row is None and column is None:
            apart.append(token)
        elif row is None or column is None or (cell := across[row] * len(along) + along[column]) in cells:
            return None
        else:
            cells[cell] = token
    if len(cells) < 2 or len(cells) != len(across) * len(along):
        return None
    return TokenGrid(len(across), len(along), tuple(cells[cell] for cell in range(len(cells))), tuple(apart))


def _extents(model: nn.Module, image: Tensor, n_tokens: int, axis: int) -> list[Extent | None] | None:
    """Return the extent of each token along an axis of the image; None where there are no such tokens."""
    import torch

    size = image.shape[axis]
    probed = list(range(0, size, max(1, size // MOST_PROBES)))
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2)).to(image)
    seen: list[Tensor] = []
    for start in range(0, len(probed), PROBES):
        at = probed[start : start + PROBES]
        images = image.repeat(len(at) + 1, 1, 1, 1)
        for index, line in enumerate(at):
            images[index + 1].narrow(axis - 1, line, 1).copy_(10 * noise[0].narrow(axis - 1, line, 1))
        tokens = _first_tokens(model, images, n_tokens)
        if tokens is None:
            return None
        seen.append((tokens[1:] - tokens[:1]).abs().amax(dim=2))
    change = torch.cat(seen).double()  # (probe, token)
    if not bool(change.isfinite().all()) or not bool(change.any()):
        return None
    hit = (change > CHANGED * change.max()).T.tolist()
    where = ([index for index, one in enumerate(token) if one] for token in hit)
    found = [(lines[0], lines[-1]) if lines else None for lines in where]
    return found if _covers(found, len(probed)) else None


def _covers(extents: list[Extent | None], n: int) -> bool:
    """Say whether tokens are spread over all of n probed rows (or columns), up to the size of one token."""
    seen = {one for one in extents if one}
    span = max((last for _, last in seen), default=0) + 1 - min((first for first, _ in seen), default=0)
    return span >= max(0.5, 1 - 1 / max(1, len(seen))) * n


def _first_tokens(model: nn.Module, images: Tensor, n_tokens: int) -> Tensor | None:
    """Return the first tokens (n, n_tokens, d) that a module takes or gives, None where there are none."""
    import torch

    def look(values: Any) -> None:  # Any: modules take and return anything
        for value in values:
            if isinstance(value, torch.Tensor) and value.ndim == 3 and value.shape[:2] == (len(images), n_tokens):
                raise _Reached(value.clone())

    try:
        with torch.inference_mode(), _watching(model, look):
            model(images)
    except _Reached as reached:
        return reached.tokens
    return None


@contextmanager
def _watching(model: nn.Module, look: Callable[[Any], None]) -> Iterator[None]:  # Any: modules take anything
    """Show the inputs, then the output, of each module's call to `look` during the block."""
    handles = []
    for module in model.modules():
        before = lambda _, args, kwargs: look((*args, *kwargs.values()))  # noqa: E731  # two lines of one shape
        after = lambda _, args, output: look((output,))  # noqa: E731
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
