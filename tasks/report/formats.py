"""Numbers as the pages print them: one form per unit, an en dash where there is no value."""

import math
from decimal import Decimal

from tasks.figures.views import compact, fixed, in_percent

MISSING = "–"
NBSP = "\u00a0"


def class_of(name: object) -> str:
    """Print the name of a class after the word, which is not repeated: "class cat", "class 2"."""
    return f"{name}" if f"{name}".lower().startswith("class ") else f"class {name}"


def radians(value: float) -> str:
    """Print an angle with three decimals; the column's head has the unit."""
    return fixed(value, 3) if math.isfinite(value) else MISSING


def radians_spread(mean: float, std: float) -> str:
    """Print mean ± std, the mean alone where the spread is unknown."""
    return _spread(radians(mean), radians(std), std)


def share(value: float) -> str:
    """Print a share 0..1 as percent with one decimal."""
    return f"{in_percent(value)}{NBSP}%" if math.isfinite(value) else MISSING


def share_spread(mean: float, std: float) -> str:
    """Print a share ± its spread in percent, the share alone where the spread is unknown."""
    if not math.isfinite(mean):
        return MISSING
    return f"{_spread(in_percent(mean), in_percent(std) if math.isfinite(std) else MISSING, std)}{NBSP}%"


def signed_share(value: float) -> str:
    """Print a small share as percent with its sign and two decimals, smaller ones by their magnitude."""
    if not math.isfinite(value):
        return MISSING
    sign = "+" if value >= 0 else ""
    shown = in_percent(value, 2) if abs(value) >= 0.5e-4 or value == 0 else f"{100 * value:.1g}"
    return f"{minus(sign + shown)}{NBSP}%"


def signed_points(value: float, error: float) -> str:
    """Print a difference of two shares in percentage points with its sign, ± its error."""
    sign = "+" if value >= 0 else ""
    noise = in_percent(error) if math.isfinite(error) else MISSING
    return f"{minus(_spread(sign + in_percent(value), noise, error))}{NBSP}points"


def signed(value: float) -> str:
    """Print a number of unknown size with its sign and three digits."""
    return minus(f"{'+' if value > 0 else ''}{compact(value)}")


def measure(value: float) -> str:
    """Print a score with three decimals, one of another size with three digits."""
    return minus(fixed(value, 3) if value == 0 or 1e-3 <= abs(value) < 100 else compact(value))


def measure_spread(value: float, std: float) -> str:
    """Print a score ± its spread, the score alone where the spread is unknown."""
    return _spread(measure(value), measure(std), std)


def part(value: float) -> str:
    """Print a part of a whole as percent with one decimal; it may be negative."""
    return minus(share(value))


def residual(value: float) -> str:
    """Print a relative residual by its magnitude."""
    return minus(f"{value:.1e}") if math.isfinite(value) else MISSING


def minus(text: str) -> str:
    """Print a minus sign for the hyphen of a number."""
    return text.replace("-", "−")


def budget(value: float) -> str:
    """Print a budget 0..1 as percent with the digits it has."""
    return f"{100 * value:.6g}{NBSP}%" if math.isfinite(value) else MISSING


def count(value: float) -> str:
    """Print a count with a comma at the thousands; an average keeps one decimal."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else f"{Decimal(fixed(value, 1)):,}"


def seconds(value: float) -> str:
    """Print a duration: hundredths of a second up to hours."""
    if not math.isfinite(value):
        return MISSING
    if round(value, 1) < 60:
        return f"{value:.2f}{NBSP}s" if round(value, 2) < 10 else f"{value:.1f}{NBSP}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def megabytes(value: float) -> str:
    """Print megabytes, from 1,000 on gigabytes."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}{NBSP}MB" if round(value) < 1000 else f"{value / 1000:,.1f}{NBSP}GB"


def text(value: object) -> str:
    """Print anything else; a missing value as a dash."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return str(value)


def yes_no(value: object) -> str:
    """Print a truth value."""
    return "yes" if value else "no"


def _spread(mean: str, spread: str, std: float) -> str:
    """Join a mean and its spread."""
    return f"{mean} ± {spread}" if mean != MISSING and math.isfinite(std) else mean
