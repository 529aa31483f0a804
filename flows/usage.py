"""Wrong options and arguments: one line each, as any other bad input."""

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from configs.load import visible
from configs.secrets import without_passwords
from flows.exits import BAD_CONFIG
from flows.terminal import err

WRONG: type[Exception] = typer.BadParameter.__mro__[1]  # usage errors of the click that this typer is made of


class Commands(TyperGroup):
    """The commands, which say what is wrong with a command line in one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # Any: as typer's own
    ) -> Any:
        """Run a command, and exit; if not `standalone_mode`, return or raise as typer's own."""
        given = args, prog_name, complete_var, False, windows_expand_args
        if not standalone_mode:
            return super().main(*given, **extra)
        try:
            code = super().main(*given, **extra)
        except WRONG as error:
            text = " ".join(error.format_message().split())  # type: ignore[attr-defined]  # every usage error has it
            context = getattr(error, "ctx", None)
            if type(error).__name__ != "NoArgsIsHelpError":  # the help is printed already
                path = "layerlore" if context is None else context.command_path
                err.print(f"error: {visible(without_passwords(text)).rstrip('.')}; see `{path} --help`", markup=False)
            sys.exit(BAD_CONFIG)
        except typer.Abort:
            sys.exit(1)
        sys.exit(code or 0)
