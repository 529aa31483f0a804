"""Layouts and the common form: by hand on tensors whose values name their channel."""

import pytest
import torch

from tasks.splitting.channels import ChannelLayout, LayoutError, decide_layout


@pytest.mark.parametrize(
    ("layout", "shape", "axis", "positions", "map_shape"),
    [
        ("channels-first", (5, 2, 3), 1, (2, 3), (5, 2, 3)),
        ("channels-first", (5, 7), 1, (7,), (5, 1, 7)),
        ("channels-last", (2, 3, 5), 3, (2, 3), (5, 2, 3)),
        ("tokens", (7, 5), 2, (7,), (5, 1, 7)),
        ("vectors", (5,), 1, (), (5, 1, 1)),
    ],
)
def test_the_common_form_has_channels_last_and_goes_back(
    layout: str, shape: tuple[int, ...], axis: int, positions: tuple[int, ...], map_shape: tuple[int, int, int]
) -> None:
    found = ChannelLayout(layout, shape)
    assert (found.n_channels, found.positions, found.map_shape) == (5, positions, map_shape)
    view = [1] * (len(shape) + 1)
    view[axis] = 5
    values = torch.arange(5.0).view(view).expand(2, *shape)
    common = found.common(values)
    assert common.shape == (2, *positions, 5)
    assert torch.equal(common, torch.arange(5.0).expand(2, *positions, 5))
    assert torch.equal(found.native(common), values)
    assert torch.equal(found.native(common.reshape(2, *map_shape[1:], 5)), values)


@pytest.mark.parametrize(
    ("shape", "axes", "wanted", "expected"),
    [
        ((1, 4), {1}, None, "vectors"),
        ((1, 4), set(), "tokens", "vectors"),  # nothing to decide
        ((1, 4, 4), {1}, None, "channels-first"),
        ((1, 4, 4), {2}, None, "tokens"),
        ((1, 4, 4, 4), {1}, None, "channels-first"),
        ((1, 4, 4, 4), {3}, None, "channels-last"),
        ((1, 4, 4, 4, 4), {4}, None, "channels-last"),
        ((1, 4, 4), set(), "tokens", "tokens"),
        ((1, 4, 4), set(), "channels-last", "tokens"),
        ((1, 4, 4, 4), {1, 3}, "channels-last", "channels-last"),
        ((1, 4, 4, 4), {3}, "channels-first", "channels-first"),
    ],
)
def test_the_config_decides_before_the_network(
    shape: tuple[int, ...], axes: set[int], wanted: str | None, expected: str
) -> None:
    assert decide_layout(shape, frozenset(axes), wanted) == ChannelLayout(expected, shape[1:])


@pytest.mark.parametrize(
    ("shape", "axes", "wanted", "message"),
    [
        (
            (1, 4, 6),
            set(),
            None,
            r"found them on an unknown axis of its output \(n, 4, 6\); set `layout` to chan.* or tok",
        ),
        ((1, 4, 6), {1, 2}, None, "found them on an unknown axis"),
        (
            (1, 4, 6, 8),
            {2},
            None,
            r"found them on axis 2 of its output \(n, 4, 6, 8\); set `layout` to .* channels-last",
        ),
        ((1, 4, 6, 8), {1}, "tokens", r"expected channels-first or channels-last for .* \(n, 4, 6, 8\), found tokens"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    shape: tuple[int, ...], axes: set[int], wanted: str | None, message: str
) -> None:
    with pytest.raises(LayoutError, match=message):
        decide_layout(shape, frozenset(axes), wanted)
