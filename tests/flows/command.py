"""Commands of `layerlore` run in this process, and what their refusals look like."""

from collections.abc import Callable, Sequence
from typing import Any

from typer.testing import CliRunner, Result

from flows import cli, exits

Tree = dict[str, Any]  # Any: YAML
Write = Callable[[Tree], str]


def layerlore(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, list(arguments), prog_name="layerlore")


def on_commands(cases: Sequence[tuple[Any, ...]], *others: str, step: int = 5) -> list[tuple[Any, ...]]:
    """Return (command, *case) for `plan` and each case, and for the other commands and one case in `step`.

    All commands refuse by the same plan, so that the others need not see every case.
    """
    sampled = [(command, *case) for command in others or ("run",) for case in cases[::step]]
    return [*(("plan", *case) for case in cases), *sampled]


def said_by(result: Result) -> list[str]:
    """Return the lines on stderr, without the first line of a run."""
    return [line for line in result.stderr.splitlines() if " stages to make, in " not in line]


def refused(result: Result, code: int = exits.BAD_CONFIG) -> str:
    """Return the error text after checking the code, its length, and that it is not a traceback."""
    assert result.exit_code == code, (result.exit_code, result.output)
    lines = said_by(result)
    assert 1 <= len(lines) <= 4, lines
    assert all(line.startswith("error: ") for line in lines), lines
    assert "Traceback" not in result.output
    return "\n".join(line.removeprefix("error: ") for line in lines)
