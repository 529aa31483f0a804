"""The shape distance in one shot: by hand, against a slow version that searches rotations, invariances."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.metrics import METRICS
from tasks.metrics.shape import shape_distance

Doubles = NDArray[np.float64]
ALPHAS = (0.0, 0.5, 1.0)
# orthonormal and centred, so that angles can be worked out by hand
A, B, C = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2


def as_printed(matrix: Doubles, width: int, alpha: float, normalise: bool) -> Doubles:
    """The definition step by step: pad, centre, normalise, Z = V d V' with the trace kept."""
    padded = np.zeros((len(matrix), width))
    padded[:, : matrix.shape[1]] = matrix
    centred = padded - padded.mean(axis=0)
    if normalise:
        centred /= np.sqrt((centred**2).sum() / len(centred))
    if alpha == 1:
        return np.asarray(centred)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    kept = values >= 1e-9 * values.max()
    factors = np.where(kept, alpha + (1 - alpha) / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    factors *= np.sqrt(values[kept].sum() / (factors**2 * values)[kept].sum())
    whitened: Doubles = centred @ ((vectors * factors) @ vectors.T)
    np.testing.assert_allclose((whitened**2).sum(), (centred**2).sum())  # the trace is kept
    return whitened


def slow_distance(x: Doubles, y: Doubles, alpha: float, normalise: bool = False) -> float:
    """The angle from the printed definition, its rotation in closed form."""
    width = max(x.shape[1], y.shape[1])
    first, second = (as_printed(matrix, width, alpha, normalise) for matrix in (x, y))
    singular = np.linalg.svd(first.T @ second, compute_uv=False)
    return float(np.arccos(singular.sum() / (np.linalg.norm(first) * np.linalg.norm(second))))


def searched_distance(x: Doubles, y: Doubles, alpha: float) -> float:
    """The smallest angle over a fine grid of plane rotations and reflections, for two columns."""
    first, second = as_printed(x, 2, alpha, False), as_printed(y, 2, alpha, False)
    best = -1.0
    for turn in np.linspace(0, 2 * np.pi, 20_001):
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        for flip in (rotation, rotation * [1, -1]):
            best = max(best, float(np.sum(second.T @ first * flip.T)))
    return float(np.arccos(best / (np.linalg.norm(first) * np.linalg.norm(second))))


def noise(*shape: int, seed: int = 0) -> Doubles:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.005, 0.02, 0.7, np.pi / 2])
def test_two_lines_meet_at_their_angle(alpha: float, angle: float) -> None:
    turned = np.cos(angle) * A + np.sin(angle) * B
    measured = shape_distance(3 * A[:, None] + 8, -2 * turned[:, None], alpha)
    np.testing.assert_allclose(measured, angle, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("alpha", "cosine"),
    [
        (1.0, 9 / 10),  # X'Y = diag(9, 0), both norms sqrt(10)
        (0.0, 1 / 2),  # whitened: (a, b) against (a, c)
        (0.5, 4 / 5),  # d = 1/2 + 1/2 / (3, 1) = (2/3, 1): (2a, b) against (2a, c)
    ],
)
def test_planes_that_share_a_line(alpha: float, cosine: float) -> None:
    x, y = np.stack([3 * A, B], axis=1), np.stack([3 * A, C], axis=1)
    np.testing.assert_allclose(np.cos(shape_distance(x, y, alpha)), cosine, rtol=1e-12)


def test_normalising_gives_unit_mean_square_rows() -> None:
    x, y = np.stack([3 * A, B], axis=1), np.stack([3 * A, C], axis=1)
    first, second = (0.5 + 0.5 / np.sqrt(value * 4 / 10) for value in (9, 1))  # N = 4, ||X||^2 = 10
    cosine = 9 * first**2 / (9 * first**2 + second**2)
    for scale in (1.0, 250.0):
        measured = shape_distance(x, scale * y, 0.5, normalise=True)
        np.testing.assert_allclose(np.cos(measured), cosine, rtol=1e-12)
    assert abs(shape_distance(x, 250 * y, 0.5) - shape_distance(x, y, 0.5)) > 0.01  # the scale matters without


@pytest.mark.parametrize(("alpha", "cosine"), [(0.0, 1 / np.sqrt(2)), (1.0, 1 / np.sqrt(5)), (0.5, 1 / np.sqrt(3.25))])
def test_a_line_in_a_plane(alpha: float, cosine: float) -> None:
    x, y = A[:, None], np.stack([A, 2 * B], axis=1)  # at 0.5: d = (1, 3/4), so y becomes (a, 1.5 b)
    np.testing.assert_allclose(np.cos(shape_distance(x, y, alpha)), cosine, rtol=1e-12)
    np.testing.assert_allclose(np.cos(shape_distance(y, x, alpha)), cosine, rtol=1e-12)


def test_sets_without_a_common_direction_are_at_a_right_angle() -> None:
    np.testing.assert_allclose(shape_distance(A[:, None], np.stack([B, C], axis=1)), np.pi / 2)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("dx", "dy"), [(4, 4), (1, 1), (2, 7), (7, 3)])
def test_it_equals_the_printed_definition(dx: int, dy: int, alpha: float, normalise: bool) -> None:
    x = noise(90, dx, seed=1) * np.linspace(0.1, 3, dx) + 20
    y = np.tanh(x[:, :1]) @ noise(1, dy, seed=2) + noise(90, dy, seed=3)
    np.testing.assert_allclose(
        shape_distance(x, y, alpha, normalise), slow_distance(x, y, alpha, normalise), rtol=1e-10
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_rotation_does_better(alpha: float) -> None:
    x, y = noise(40, 2), noise(40, 2, seed=1)
    y[:, 0] += 2 * x[:, 1]
    np.testing.assert_allclose(shape_distance(x, y, alpha), searched_distance(x, y, alpha), atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_rotated_copy_is_the_same_shape(alpha: float) -> None:
    x = noise(300, 6) * [1, 2, 3, 4, 5, 50]
    rotation = np.linalg.qr(noise(6, 6, seed=1))[0]
    assert shape_distance(x, x @ rotation - 3, alpha) < 1e-12
    wide = np.concatenate([x @ rotation, np.zeros((300, 2))], axis=1)  # padding changes nothing
    assert shape_distance(x, wide, alpha) < 1e-12
    y = noise(300, 4, seed=2) + x[:, :4]
    np.testing.assert_allclose(shape_distance(x @ rotation, y, alpha), shape_distance(x, y, alpha), rtol=1e-10)


def test_what_each_alpha_is_free_of() -> None:
    x, linear = noise(300, 6), noise(6, 6, seed=1)
    assert shape_distance(x, x @ linear, 0.0) < 1e-9  # any invertible map
    assert shape_distance(x, x @ linear, 1.0) > 0.1
    assert shape_distance(x, 1e-3 * x, 1.0) < 1e-12  # scale
    assert shape_distance(x, 30 * x, 0.5, normalise=True) < 1e-12
    ill = np.linalg.qr(linear)[0] @ np.diag(np.logspace(0, -4.2, 6)) @ np.linalg.qr(linear.T)[0]
    assert shape_distance(x, x @ ill, 0.0) < 1e-6  # eigenvalues over more than eight decades
    lost = np.diag([1, 1, 1, 1, 1, 1e-5])  # its last eigenvalue is 1e-10 of the first: dropped, as sqrt(5 / 6) says
    np.testing.assert_allclose(np.cos(shape_distance(x, x @ lost, 0.0)), np.sqrt(5 / 6), rtol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_it_is_a_metric(alpha: float) -> None:
    x, y, z = (noise(50, 5, seed=seed) for seed in range(3))
    order = np.random.default_rng(9).permutation(50)
    direct = shape_distance(x, y, alpha, True)
    np.testing.assert_allclose(shape_distance(y, x, alpha, True), direct, rtol=1e-12)
    np.testing.assert_allclose(shape_distance(x[order], y[order], alpha, True), direct, rtol=1e-12)
    assert direct <= shape_distance(x, z, alpha, True) + shape_distance(z, y, alpha, True)
    path = [shape_distance(x, (1 - t) * x + t * y, alpha) for t in (0.0, 0.01, 0.2, 0.6)]
    assert all(near < far for near, far in pairwise(path))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rank_deficient_maps_keep_their_own_directions_only(alpha: float) -> None:
    codes, others = np.abs(noise(400, 3)), np.abs(noise(400, 3, seed=1))
    others[:, 0] = codes[:, 0]
    basis, rotated = np.linalg.qr(noise(40, 3, seed=2))[0].T, np.linalg.qr(noise(25, 3, seed=3))[0].T
    expected = slow_distance(codes, others, alpha)
    np.testing.assert_allclose(shape_distance(codes @ basis, others @ rotated, alpha), expected, atol=1e-9)
    x, y = (codes @ basis).astype(np.float32), (others @ rotated).astype(np.float32)
    np.testing.assert_allclose(shape_distance(x, y, alpha), expected, atol=1e-5)


def test_float32_is_summed_in_float64() -> None:
    signal, other = noise(5000, 3), noise(5000, 2, seed=1)
    x = (signal + 1000).astype(np.float32)  # float32 products of these would lose all digits of the signal
    y = (signal[:, :2] + other).astype(np.float32)
    expected = slow_distance(x.astype(np.float64), y.astype(np.float64), 0.0)
    np.testing.assert_allclose(shape_distance(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-160, 1e-38, 1e39, 1e160, 1e306])
def test_magnitude_costs_no_digits(scale: float) -> None:
    x, y = noise(300, 5), noise(300, 3, seed=1) + noise(300, 5)[:, :3]
    for alpha, normalise in ((0.0, False), (0.5, True), (1.0, False)):  # free of scale
        expected = slow_distance(x, y, alpha, normalise)
        np.testing.assert_allclose(shape_distance(scale * x, y, alpha, normalise), expected, rtol=1e-12)
        np.testing.assert_allclose(shape_distance(y * 1e-90, scale * (x + 7), alpha, normalise), expected, rtol=1e-12)
        assert shape_distance(scale * x, -3 * x, alpha, normalise) < 1e-12  # the second pass


def test_scale_still_counts_between_the_ends_of_alpha() -> None:
    x, y = noise(300, 5) @ np.diag([1, 2, 3, 4, 5]), noise(300, 3, seed=1) + noise(300, 5)[:, :3]
    for scale, alpha in ((1e45, 1e-46), (1e-45, 1 - 1e-15), (1e45, 1e-44)):  # the definition can still be written out
        expected = slow_distance(scale * x, y, alpha)
        np.testing.assert_allclose(shape_distance(scale * x, y, alpha), expected, rtol=1e-10)
    for scale, near in ((1e160, 1e12), (1e-200, 1e-12)):  # so far out one of the two weights is all
        expected = slow_distance(near * x, y, 0.5)
        np.testing.assert_allclose(shape_distance(scale * x, y, 0.5), expected, rtol=1e-10)


def test_differences_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns: expected differences up to 1.8e\+308, found larger ones"):
        shape_distance(np.array([[1.7e308], [-1.7e308]]), noise(2, 1))


def test_a_constant_set_has_no_distance() -> None:
    for alpha in ALPHAS:
        assert np.isnan(shape_distance(np.full((5000, 3), 0.1), noise(5000, 2), alpha, True))
        assert np.isnan(shape_distance(noise(3, 2), np.zeros((3, 1)), alpha))


def test_inputs_stay() -> None:
    x, y = noise(10, 3), noise(10, 2, seed=1)
    x.setflags(write=False)
    y.setflags(write=False)
    assert 0 < shape_distance(x, y, 0.5) < np.pi / 2


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(3), np.zeros((3, 1)), r"x: expected shape \(n, columns\), both at least 1, found \(3,\)"),
        (np.zeros((3, 1)), np.zeros((3, 0)), r"y: expected shape .*found \(3, 0\)"),
        (np.zeros((3, 1)), np.zeros((4, 1)), "expected the same rows in both, found 3 and 4"),
        (
            np.zeros((3, 1)),
            np.array([[0], [np.nan], [np.inf]]),
            "y: expected finite values, found NaN or inf in 2 of 3 rows, the first is row 1",
        ),
        (np.zeros((1, 2)), np.zeros((1, 2)), "at least 2 rows, found 1"),
    ],
)
def test_bad_matrices_are_refused(x: Doubles, y: Doubles, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shape_distance(x, y)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha: expected 0"):
        shape_distance(noise(5, 2), noise(5, 2), alpha)


@pytest.mark.parametrize("alpha", ["0", None, True])
def test_alpha_of_another_kind_is_refused(alpha: float) -> None:
    with pytest.raises(TypeError, match="alpha: expected a number, found"):
        shape_distance(noise(3, 2), noise(3, 2), alpha)


def test_other_kinds_of_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match=r"y: expected a NumPy array .* found MaskedArray"):  # its mask would be ignored
        shape_distance(noise(3, 2), np.ma.masked_array(noise(3, 2), noise(3, 2) > 0))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="x: expected a NumPy array"):
        shape_distance(torch.zeros(3, 2), noise(3, 2))
    with pytest.raises(TypeError, match="y: expected real numbers, found dtype complex128"):
        shape_distance(noise(3, 2), noise(3, 2).astype(complex))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_a_distance(name: str) -> None:
    x, y = noise(60, 4), noise(60, 3, seed=1)
    assert METRICS[name](x, x) < 1e-7
    assert METRICS[name](x, y) > 0.1
    np.testing.assert_allclose(METRICS[name](x, y), METRICS[name](y[::-1], x[::-1]), rtol=1e-10)
