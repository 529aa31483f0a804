"""Exact non-negative least squares for many rows at once, with fixed components."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tasks.interpreters.hals import descend
from tasks.interpreters.rows import Matrix, Rows, check_range, open_rows

WARM_SWEEPS = 10
JOINED_ROWS = 4_096  # rows with codes solved together, where a chunk of the matrix has fewer
EXCHANGES = 8
SOLVE_BYTES = 16 << 20  # bytes of the batched (c, r, r) float64 systems of a chunk
RIDGE = 1e-14  # added to a Gram matrix of unit diagonal: duplicates share; far below any residual that matters
TOLERANCE = 1e-13  # on the gradient, relative to the row's largest product
TINY = 1e-300  # keeps divisions defined
MAX_BITS = 62  # passive sets of up to this many components are coded as integers, so that equal sets share a factor


def nmf_codes(a: Matrix, components: Matrix) -> Matrix:
    """Solve `min ||a_i - s_i components||, s_i >= 0` for every row.

    Parameters
    ----------
    a : (n, d) numpy or torch, any float width, finite
    components : (r, d), kind of `a`; zero and duplicate rows are allowed

    Returns
    -------
    (n, r) >= 0, of the kind and device of `a`, float64 for float64 and else float32; 0 for zero components
    """
    return solve_rows(open_rows(a, clamp=False), components)


def solve_rows(rows: Rows, components: Matrix) -> Matrix:
    """Solve the problem of `nmf_codes` for a matrix that is already checked."""
    basis = open_rows(components, clamp=False, name="components")
    if basis.n == 0:
        raise ValueError(f"components: expected at least one, shape (r, {rows.d}), found (0, {basis.d})")
    if basis.d != rows.d:
        raise ValueError(f"components: expected shape (r, {rows.d}), as `a` has {rows.d} columns, found (r, {basis.d})")
    unit = basis.read(slice(None), torch.float64).to(rows.device)
    length = torch.linalg.vector_norm(unit, dim=1)
    unit = unit / torch.where(length > 0, length, 1.0)[:, None]
    gram = unit @ unit.T
    codes = torch.zeros(rows.n, basis.n, dtype=rows.dtype, device=rows.device)
    back = torch.where(length > 0, basis.scale / (length * rows.scale), 0.0)
    for part, product in _products(rows, unit):
        codes[part] = (_solve(product, gram) * back).to(codes)
    check_range(codes)
    return rows.restore(codes)


def _products(rows: Rows, unit: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, (c, r) float64 products with the components); chunks are joined where there are few components.

    A solution needs many small operations on all rows of a chunk, so their number counts. A product needs one.
    """
    start, few = 0, list[Tensor]()
    for part, block in rows.chunks(dtype=torch.float64):
        few.append(block @ unit.T)
        if part.stop - start >= JOINED_ROWS or part.stop == rows.n:
            yield slice(start, part.stop), torch.cat(few) if len(few) > 1 else few[0]
            start, few = part.stop, []


def _solve(product: Tensor, gram: Tensor) -> Tensor:
    """Return the exact solutions (c, r) for products (c, r) with the unit components of `gram` (r, r)."""
    codes = product.T.clamp(min=0).contiguous()
    descend(codes, product.T.clone(), gram, WARM_SWEEPS)
    solution = codes.T.contiguous()
    system = gram + RIDGE * len(gram) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    size = max(1, SOLVE_BYTES // (8 * max(1, len(gram)) ** 2))
    for start in range(0, len(solution), size):
        part = slice(start, start + size)
        left = _exchange(solution[part], product[part], system)
        if len(left) > 0:
            left += start
            solution[left] = _active_set(solution[left], product[left], system)
    return solution


def _exchange(solution: Tensor, product: Tensor, system: Tensor) -> Tensor:
    """Exchange all components on the wrong side at once (block pivoting); return the rows that did not converge.

    Most rows converge in a few rounds, in place. The others keep their feasible start.
    """
    free = solution > 0
    tolerance = TOLERANCE * product.abs().amax(dim=1, keepdim=True)
    todo = torch.arange(len(solution), device=solution.device)
    for _ in range(EXCHANGES):
        inside, goal = free[todo], product[todo]
        target = _solve_free(system, goal, inside)
        wrong = torch.where(inside, target < 0, goal - target @ system > tolerance[todo])
        open_ = wrong.any(dim=1)
        solution[todo[~open_]] = torch.where(inside, target, 0.0)[~open_]
        free[todo] = inside ^ wrong
        todo = todo[open_]
        if len(todo) == 0:
            break
    return todo


def _active_set(solution: Tensor, product: Tensor, system: Tensor) -> Tensor:
    """Solve all rows of a chunk together by Lawson and Hanson's method, from a feasible start; errors never rise.

    Every round solves each unfinished row on its passive set. A row with a target outside the cone moves to the
    cone's wall and drops the component there. Otherwise it adds the steepest component or is done.
    """
    solution, free = solution.clone(), solution > 0
    tolerance = TOLERANCE * product.abs().amax(dim=1, keepdim=True)
    barred = torch.zeros_like(free)
    todo = torch.arange(len(solution), device=solution.device)
    for _ in range(20 + 10 * len(system)):
        now, inside, goal = solution[todo], free[todo], product[todo]
        target = _solve_free(system, goal, inside)
        ratio = torch.where(inside & (target <= 0), now / (now - target).clamp(min=TINY), torch.inf)
        step, met = ratio.min(dim=1, keepdim=True)
        blocked = step < torch.inf
        now = torch.where(blocked, now + step.clamp(max=1.0) * (target - now), target).clamp(min=0)
        barred[todo] |= _one_hot(met, blocked & (step == 0), inside)  # added by rounding only: keep it out
        slope = (goal - now @ system - tolerance[todo]).masked_fill(inside | barred[todo], -torch.inf)
        steepest, entering = slope.max(dim=1, keepdim=True)
        inside = inside & ~_one_hot(met, blocked, inside) | _one_hot(entering, ~blocked & (steepest > 0), inside)
        solution[todo], free[todo] = torch.where(inside, now, 0.0), inside
        todo = todo[(blocked | (steepest > 0)).squeeze(1)]
        if len(todo) == 0:
            break
    return solution


def _one_hot(position: Tensor, where: Tensor, like: Tensor) -> Tensor:
    """Return booleans (c, r), as `like`, true at `position` (c, 1) in the rows of `where` (c, 1)."""
    return torch.zeros_like(like).scatter(1, position, where)


def _solve_free(system: Tensor, product: Tensor, free: Tensor) -> Tensor:
    """Solve each row's system on its free components (c, r), 0 elsewhere; rows with equal sets share a factor.

    Sets of one size are solved together, each as a system of that size.
    """
    sets, group = _distinct(free)
    sizes, place = sets.sum(dim=1), group.new_empty(len(sets))
    solution = torch.zeros_like(product)
    for size in sorted(set(sizes.tolist())):
        members, rows = (sizes == size).nonzero().squeeze(1), (sizes[group] == size).nonzero().squeeze(1)
        place[members] = torch.arange(len(members), device=free.device)
        index = sets[members].nonzero()[:, 1].view(len(members), size)
        entries = index[:, :, None] * len(system) + index[:, None, :]
        factors = torch.linalg.cholesky(system.view(-1).index_select(0, entries.view(-1)).view(entries.shape))
        own = place[group[rows]]
        index = index[own]
        solved = torch.cholesky_solve(product[rows].gather(1, index)[:, :, None], factors[own])
        solution[rows[:, None], index] = solved.squeeze(2)
    return solution


def _distinct(free: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows (s, r) of sets (c, r), and the one of each row (c,); wide sets count as distinct."""
    if free.shape[1] > MAX_BITS:
        return free, torch.arange(len(free), device=free.device)
    bits = 2 ** torch.arange(free.shape[1], device=free.device)
    _, group = torch.unique((free * bits).sum(dim=1), return_inverse=True)
    sets = torch.zeros(int(group.max()) + 1, free.shape[1], dtype=torch.bool, device=free.device)
    sets[group] = free
    return sets, group
