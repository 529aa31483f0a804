"""Numbers as they are printed."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.figures.views import fixed, in_percent
from tasks.report import formats

NAN = float("nan")


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (formats.radians, 0.41249, "0.412"),
        (formats.radians, NAN, "–"),
        (formats.share, 0.9174, "91.7 %"),
        (formats.share, NAN, "–"),
        (formats.budget, 0.1, "10 %"),
        (formats.budget, 0.005, "0.5 %"),
        (formats.budget, 0.07, "7 %"),  # 100 * 0.07 is 7.000000000000001
        (formats.budget, NAN, "–"),
        (formats.count, 63700, "63,700"),
        (formats.count, 0.5, "0.5"),
        (formats.count, NAN, "–"),
        (formats.seconds, 0.42, "0.42 s"),
        (formats.seconds, 9.996, "10.0 s"),
        (formats.seconds, 31.52, "31.5 s"),
        (formats.seconds, 59.96, "1 min 00 s"),
        (formats.seconds, 200.4, "3 min 20 s"),
        (formats.seconds, 3599.7, "1 h 00 min"),
        (formats.seconds, 3800.0, "1 h 03 min"),
        (formats.seconds, NAN, "–"),
        (formats.megabytes, 512.4, "512 MB"),
        (formats.megabytes, 999.7, "1.0 GB"),
        (formats.megabytes, 1210.0, "1.2 GB"),
        (formats.megabytes, NAN, "–"),
        (formats.text, NAN, "–"),
        (formats.text, None, "–"),
        (formats.text, 7, "7"),
        (formats.signed_share, 0.0132, "+1.32 %"),
        (formats.signed_share, -0.0041, "−0.41 %"),
        (formats.signed_share, 0.0, "+0.00 %"),
        (formats.signed_share, 0.00003, "+0.003 %"),
        (formats.signed_share, NAN, "–"),
        (formats.signed, 12.345, "+12.3"),
        (formats.signed, -1.2e-5, "−1.2e−05"),
        (formats.part, -0.05, "−5.0 %"),
        (formats.measure, 0.91, "0.910"),
        (formats.measure, -0.03, "−0.030"),
        (formats.measure, 12345.0, "12,300"),
        (formats.measure, NAN, "–"),
        (formats.residual, 3.14e-7, "3.1e−07"),
        (formats.residual, NAN, "–"),
        (formats.yes_no, True, "yes"),
        (formats.yes_no, False, "no"),
    ],
)
def test_forms(form: Callable[[object], str], value: object, expected: str) -> None:
    assert form(value).replace(formats.NBSP, " ") == expected


TIES = [0.9805, 0.98050000000000004, 1961 / 2000, sum([0.981, 0.980] * 10) / 20, np.mean([0.9805] * 7)]


@pytest.mark.parametrize("value", TIES)
def test_a_share_prints_the_same_whatever_its_last_bits(value: float) -> None:
    assert formats.share(value).replace(formats.NBSP, " ") == "98.1 %"
    assert formats.part(-value).replace(formats.NBSP, " ") == "−98.1 %"
    assert formats.share_spread(value, value).replace(formats.NBSP, " ") == "98.1 ± 98.1 %"
    assert in_percent(value) == "98.1"


def test_shares_of_2000_images_round_half_away_from_zero() -> None:
    for count in range(2001):
        tenths = (count + 1) // 2  # of a percent, of which there are 1,000: whole numbers, halves up
        assert formats.share(count / 2000) == f"{tenths // 10}.{tenths % 10}{formats.NBSP}%"


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        *[(98.046, 1, "98.0"), (98.0499, 1, "98.0"), (98.05, 1, "98.1"), (-98.05, 1, "-98.1"), (49.46, 0, "49")],
        *[(0.5, 0, "1"), (2.675, 2, "2.68"), (-0.04, 1, "0.0"), (0.0, 3, "0.000"), (1e15, 1, "1000000000000000.0")],
    ],
)
def test_numbers_are_rounded_once(value: float, digits: int, expected: str) -> None:
    assert fixed(value, digits) == expected


def test_spreads_are_left_out_where_unknown() -> None:
    assert formats.radians_spread(0.4, 0.02) == "0.400 ± 0.020"
    assert formats.radians_spread(0.4, NAN) == "0.400"
    assert formats.radians_spread(NAN, 0.02) == "–"
    assert formats.share_spread(0.931, 0.004) == f"93.1 ± 0.4{formats.NBSP}%"
    assert formats.share_spread(0.931, NAN) == f"93.1{formats.NBSP}%"
    assert formats.share_spread(NAN, NAN) == "–"
    assert formats.measure_spread(0.31, 0.02) == "0.310 ± 0.020"
    assert formats.measure_spread(0.31, NAN) == "0.310"


def test_the_word_class_is_printed_once() -> None:
    names = {"cat": "class cat", 3: "class 3", "class 2": "class 2", "Class B": "Class B", "classic": "class classic"}
    assert {name: formats.class_of(name) for name in names} == names
