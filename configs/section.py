"""The base of all sections of a config, and checks of paths, sizes and names."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from unicodedata import category

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from configs.secrets import INSTEAD, secret_in

MAX_SIDE = 8192  # pixels: the plan reads one image as the network will get it
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")  # Amazon's former rule, which other servers still use


def check_side(pixels: int) -> int:
    """Return the side of an image; ValueError where it is not positive or does not fit in memory."""
    if not 1 <= pixels <= MAX_SIDE:
        raise ValueError(f"expected 1 to {MAX_SIDE:,} pixels, found {pixels}")
    return pixels


INDEX = r"(0|[1-9][0-9]{0,17})"  # of a unit or a call as it is printed, so that each has one name


def check_distinct(key: str, entries: Sequence[Hashable]) -> None:
    """Raise ValueError where a list has an entry twice."""
    if len(set(entries)) != len(entries):
        raise ValueError(f"{key}: expected different entries, found the same one twice; remove one")


def check_location(url: str) -> str:
    """Return a path or URL; ValueError where it holds control characters or credentials."""
    if any(category(letter) in ("Cc", "Cs") for letter in url):
        raise ValueError(f"expected a path or URL without control characters, found {url!r}")
    if secret := secret_in(url):
        raise ValueError(f"expected no secret, found {secret}; {INSTEAD}")
    try:
        Path(url).expanduser()
    except RuntimeError:
        raise ValueError(f"expected the home folder of a user of this machine, found {url!r}") from None
    return url


def check_store(url: str) -> str:
    """Return the location of a store; ValueError unless it is a path, file:///path or s3://bucket/prefix."""
    check_location(url)
    scheme, separator, rest = url.partition("://")
    odd = scheme not in ("file", "s3") or not rest.strip("/") if separator else url.startswith(("s3:", "file:"))
    if scheme == "s3" and separator:
        bucket, *prefix = rest.rstrip("/").split("/")
        # Where a path begins with an @, what is before it was meant as credentials.
        odd = not _BUCKET.fullmatch(bucket) or "@" in "".join(prefix[:1]) or bool({"", ".", ".."} & {*prefix})
        odd = odd or "?" in rest or "#" in rest
    if odd or not url.strip():
        found = "one with an @ in it" if "@" in url else repr(url)
        raise ValueError(f"expected a local folder, file:///folder or s3://bucket/prefix, found {found}")
    return url


SIDE = AfterValidator(check_side)
Side = Annotated[int, SIDE]
MAX_SEED = 2**63 - 1  # what an int64 holds
Location = Annotated[str, AfterValidator(check_location)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Share = Annotated[float, Field(gt=0, le=1)]
Folders = Annotated[tuple[Location, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
Paths = Annotated[tuple[Location, ...], Field(min_length=1)]


# YAML 1.1 takes 1e-3 for text, 1.0e-3 for a number.
_EXPONENT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")


def _with_numbers(given: object) -> object:
    """Return a method's parameters in which a number such as 1e-3 is one, as where the type of a key is known."""
    if not isinstance(given, Mapping):
        return given
    return {name: _number(value) for name, value in given.items()}


def _number(value: object) -> object:
    """Return the number that a text such as 1e-3 means, and any other value as it is."""
    if not isinstance(value, str) or not _EXPONENT.fullmatch(value):
        return value
    return number if math.isfinite(number := float(value)) else value


Parameters = Annotated[dict[str, Any], BeforeValidator(_with_numbers)]  # Any: the method's own


class Section(BaseModel):
    """The base of a part of the config: it is frozen, and every unknown key is an error."""

    # Pydantic's own text must not repeat a value, which may be a secret; `configs.load` shows what it may.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def kind_by_default(section: type[Section]) -> BeforeValidator:
    """Let a mapping without `kind` be a section whose `kind` has a default, if all keys are that section's.

    A config as text leaves out what equals its default, `kind` too.
    """
    kind = section.model_fields["kind"].default

    def add(given: object) -> object:
        if isinstance(given, Mapping) and "kind" not in given and set(given) <= set(section.model_fields):
            return {"kind": kind, **given}
        return given

    return BeforeValidator(add)


def size_bytes(text: str) -> float:
    """Return the bytes that a size such as 4GB or 512 MiB means."""
    number = text.rstrip("kMGTiB ")
    unit = text[len(number) :].strip()
    power = "kMGT".index(unit[0]) + 1 if unit[0] in "kMGT" else 0
    return float(number) * float((1024 if "i" in unit else 1000) ** power)
