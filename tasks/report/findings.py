"""The headline findings of the report: sentences computed from its tables, no stronger than the numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One sentence or two, under a word that says what they are about."""

    about: str
    text: str
