"""Batch norm with statistics from a batch and from ghosts (Pfahler & Morik 2022, Algorithm 2, corrected).

A single-class batch does not have the statistics of the whole data. Ghosts supply them: samples of all classes without
a loss. Each of n ghosts has weight 1, and the batch as a whole has weight 1.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.modules.rows import declared_counts

REPLACED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

Statistics = tuple[Tensor, Tensor]


def ghost_statistics(batch: Tensor, ghosts: Tensor, as_printed: bool = False) -> Statistics:
    """Return mean and variance over a batch of total weight 1 and n ghosts of weight 1 each.

    Parameters
    ----------
    batch : (m, channels, ...) float, m >= 1
    ghosts : (n, channels, ...) float, further axes as in `batch`; n = 0 gives the batch's statistics
    as_printed : use the formula as printed in the paper: the mean's shift has the other sign; the batch's variance is
        not divided by n + 1

    Returns
    -------
    mean (channels,), biased variance (channels,); differentiable in both inputs; float32 for half precision

    Raises
    ------
    TypeError : not tensors
    ValueError : wrong shapes, integers, NaN

    Notes
    -----
    Every position of a sample shares its weight equally.
    `mean = mean_g + (mean_b - mean_g) / (n + 1)`,
    `var = (n var_g + var_b) / (n + 1) + n (mean_b - mean_g)^2 / (n + 1)^2`.
    """
    for name, rows in (("batch", batch), ("ghosts", ghosts)):
        if not isinstance(rows, Tensor):
            raise TypeError(f"{name}: expected a tensor, found a {type(rows).__name__}")
        if rows.ndim < 2 or not rows.is_floating_point():
            raise ValueError(
                f"{name}: expected floats (samples, channels, ...), found {rows.dtype} {tuple(rows.shape)}"
            )
        if torch.isnan(rows).any():
            raise ValueError(f"{name}: expected finite values, found NaN")
    if batch.shape[1:] != ghosts.shape[1:] or not batch.numel():
        raise ValueError(
            "batch, ghosts: expected at least one sample in the batch and samples of one shape, found "
            f"{tuple(batch.shape)} and {tuple(ghosts.shape)}"
        )
    return _statistics(batch, ghosts, as_printed, len(ghosts))


class GhostBatchNorm(_BatchNorm):
    """Batch norm that, within `ghost_rows`, reads the last rows of its input as ghosts.

    In evaluation mode, and in training without ghosts, it is torch's batch norm. Running statistics follow the same
    mean and variance. Their variance is made unbiased by the effective sample size. That size is (sum of weights)^2 /
    (sum of squared weights), over rows and positions.

    Where a network declares the rows of each sample (`tasks.modules.rows.rows_of`), such as the nodes of graphs, the
    batch's rows share its weight of 1 equally, and the ghosts' rows their weight of n.
    """

    as_printed: bool = False  # eps is then added to the root, as printed, not below the root
    detach_ghosts: bool = False  # no gradient flows through the ghosts
    rows: tuple[int, int] = (0, 0)  # samples of the batch, then ghosts
    held: tuple[Tensor, ...] = ()  # one tensor: ghosts with another graph, in place of detached ghosts

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """Return the normalised rows of batch and ghosts, (m + n, channels, ...)."""
        if not self.training or not self.rows[1]:
            return super().forward(input)
        mean, var, unbiased = self.moments(input)
        self._follow(mean.detach(), unbiased.detach())
        scale = self._inverse(var) if self.weight is None else self._inverse(var) * self.weight
        offset = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (1, -1, *[1] * (input.ndim - 2))
        return torch.addcmul(offset.view(shape), input, scale.view(shape)).to(input.dtype)

    def _inverse(self, var: Tensor) -> Tensor:
        """Return 1 / standard deviation."""
        if not self.as_printed:
            return torch.rsqrt(var + self.eps)
        tiny = torch.finfo(var.dtype).tiny  # a dead channel has variance 0, where the root does not have a derivative
        return 1 / (var.clamp(min=tiny).sqrt() + self.eps)

    def moments(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, biased and unbiased variance of an input with the present rows; differentiable."""
        n, cut = self.rows[1], self.cut(input)
        batch, ghosts = input[:cut], input[cut:]
        if self.detach_ghosts:
            ghosts = self.held[0] if self.held else ghosts.detach()
        mean, var = _statistics(batch, ghosts, self.as_printed, n)
        effective = (n + 1) ** 2 * input[0, 0].numel() / (n**2 / len(ghosts) + 1 / cut)
        return mean, var, var * (effective / (effective - 1))

    def cut(self, input: Tensor) -> int:
        """Return the number of rows of the batch, which lie before those of the ghosts.

        Raises
        ------
        ValueError : an input of other samples than those of `ghost_rows`
        """
        m, n = self.rows
        counts = declared_counts(input)
        if (len(input) if counts is None else len(counts)) != m + n:
            found = f"{len(input)}" if counts is None else f"rows of {len(counts)} samples"
            raise ValueError(f"ghost batch norm: expected {m} rows of the batch and {n} ghosts, found {found}")
        rows = m if counts is None else int(counts[:m].sum())
        if not 0 < rows < len(input):
            raise ValueError("ghost batch norm: expected rows of the batch and of the ghosts, found none of one")
        return rows

    @torch.no_grad()
    def _follow(self, mean: Tensor, unbiased: Tensor) -> None:
        """Move the running statistics towards a step's, in place, since other modules share them."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean.to(self.running_mean.dtype), alpha=share)
        self.running_var.mul_(1 - share).add_(unbiased.to(self.running_var.dtype), alpha=share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Raise ValueError for inputs that none of BatchNorm1d, 2d and 3d accepts."""
        if input.ndim not in (2, 3, 4, 5):
            raise ValueError(f"batch norm: expected an input of 2 to 5 axes, found {input.ndim}")


def running_moments(norm: _BatchNorm, input: Tensor) -> Statistics:
    """Return the mean and variance that running statistics follow in training; differentiable.

    Parameters
    ----------
    norm : batch norm, or ghost batch norm within `ghost_rows`
    input : (n, channels, ...) what it takes
    """
    if isinstance(norm, GhostBatchNorm) and norm.rows[1]:
        mean, _, unbiased = norm.moments(input)
        return mean, unbiased
    mean, var = _moments(input)
    count = input.numel() / input.shape[1]
    return mean, var * (count / (count - 1))


def with_ghost_norm(model: nn.Module, *, as_printed: bool = False, detach_ghosts: bool = False) -> nn.Module:
    """Return a twin of `model` where BatchNorm1d, 2d and 3d use ghosts.

    The twin shares parameters and buffers: a training of the twin trains `model`. Names in `state_dict` stay the same.
    Move the model to its device first, since a move replaces buffers.

    Parameters
    ----------
    as_printed : use Algorithm 2 as the paper prints it, see `ghost_statistics`
    detach_ghosts : block the gradient through the ghosts
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    replaced: dict[int, GhostBatchNorm] = {}  # a module in two places stays one module
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if type(module) in REPLACED:
            assert isinstance(module, _BatchNorm)
            norm = replaced.setdefault(id(module), _replacement(module))
            norm.as_printed, norm.detach_ghosts = as_printed, detach_ghosts
            if not name:
                return norm
            parent, _, child = name.rpartition(".")
            setattr(twin.get_submodule(parent), child, norm)
    return twin


def has_ghost_norm(model: nn.Module) -> bool:
    """Return whether ghosts change the output of `model`."""
    return any(isinstance(module, GhostBatchNorm) for module in model.modules())


@contextmanager
def ghost_rows(model: nn.Module, m: int, n: int) -> Iterator[None]:
    """Declare for the block that the inputs of `model` are m samples of the batch, then n ghosts."""
    norms = [module for module in model.modules() if isinstance(module, GhostBatchNorm)]
    before = [norm.rows for norm in norms]
    try:
        for norm in norms:
            norm.rows = (m, n)
        yield
    finally:
        for norm, rows in zip(norms, before, strict=True):
            norm.rows = rows


def _statistics(batch: Tensor, ghosts: Tensor, as_printed: bool, n: int) -> Statistics:
    """Return mean and biased variance of rows of a batch and of n ghosts, without checks."""
    mean_b, var_b = _moments(batch)
    if not n:
        return mean_b, var_b
    mean_g, var_g = _moments(ghosts)
    shift = mean_b - mean_g
    if as_printed:
        return mean_g - shift / (n + 1), n * var_g / (n + 1) + var_b + n * shift**2 / (n + 1) ** 2
    return mean_g + shift / (n + 1), (n * var_g + var_b) / (n + 1) + n * shift**2 / (n + 1) ** 2


def _moments(rows: Tensor) -> Statistics:
    """Return mean and biased variance of each channel."""
    wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    var, mean = torch.var_mean(wide, [axis for axis in range(rows.ndim) if axis != 1], correction=0)
    return mean, var


def _replacement(module: _BatchNorm) -> GhostBatchNorm:
    """Return ghost batch norm with the parameters, buffers and mode of `module`."""
    affine = module.weight is not None
    norm = GhostBatchNorm(
        module.num_features, module.eps, module.momentum, affine, module.track_running_stats, device="meta"
    )
    for own, given in ((norm._parameters, module._parameters), (norm._buffers, module._buffers)):
        own.update(given)  # type: ignore[arg-type]  # parameters to parameters, buffers to buffers
    norm.training = module.training
    return norm
