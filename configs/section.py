"""What all sections of a config share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Share = Annotated[float, Field(gt=0, le=1)]
Paths = Annotated[tuple[str, ...], Field(min_length=1)]


class Section(BaseModel):
    """A part of the config: frozen, and every unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def size_bytes(text: str) -> float:
    """Return the bytes that a size such as 4GB or 512 MiB means."""
    number = text.rstrip("kMGTiB ")
    unit = text[len(number) :].strip()
    power = "kMGT".index(unit[0]) + 1 if unit[0] in "kMGT" else 0
    return float(number) * float((1024 if "i" in unit else 1000) ** power)
