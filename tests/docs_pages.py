"""The pages of the documentation, their blocks and the commands on them."""

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from flows.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deployments/README.md"),
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
]
PLACEHOLDERS = {"CONFIG": "digits", "STORE": "lore", "N": "0", "ID": "0"}
Tree = dict[str, Any]  # Any: YAML


def text_of(page: str) -> str:
    """Return a page of the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return every `layerlore ...` of a page, in blocks and in running text."""
    lines = [line.strip() for block in blocks(page, "bash") for line in block.splitlines()]
    inline = re.findall(r"`(layerlore [^`]+)`", text_of(page))
    return [line.partition(" > ")[0].partition("  #")[0] for line in [*lines, *inline] if line.startswith("layerlore ")]


def parsed(command: str) -> tuple[str, Tree]:
    """Return the subcommand and its parameters; an unknown command, option or too many arguments are errors."""
    group = typer.main.get_command(app)
    _, name, *words = shlex.split(command)
    subcommand = group.commands[name]  # type: ignore[attr-defined]  # a Typer app with commands is a group
    with subcommand.make_context(name, [PLACEHOLDERS.get(word, word) for word in words]) as context:
        return name, dict(context.params)
