"""Numbers, names and choices of places in figures."""

import pytest

from tasks.figures.views import compact, shorten, shorten_path, spread_out


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (float("nan"), "–"),
        (0.01234, "0.0123"),
        (0.9996, "1.00"),
        (-4.567, "-4.57"),
        (43.04, "43.0"),
        (999.6, "1,000"),
        (12345.0, "12,300"),
        (1.23e-5, "1.2e-05"),
        (2.5e7, "2.5e+07"),
    ],
)
def test_compact_keeps_three_digits(value: float, expected: str) -> None:
    assert compact(value) == expected


def test_names_are_cut_with_an_ellipsis() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert shorten_path("a.b.cd", 6) == "a.b.cd"
    assert shorten_path("a.b.cde", 6) == "…b.cde"


def test_chosen_places_are_spread_and_hold_both_ends() -> None:
    assert spread_out(3, 8) == [0, 1, 2]
    assert spread_out(16, 8) == [0, 2, 4, 6, 9, 11, 13, 15]
    assert spread_out(9, 5) == [0, 2, 4, 6, 8]
    assert spread_out(0, 5) == []
