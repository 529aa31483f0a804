"""The command `layerlore compare`: runs of a store, or the networks of one, side by side."""

from functools import partial
from typing import Annotated

import typer

from flows.exits import exits
from flows.options import JsonOption, StoreArgument, opened_store
from flows.terminal import err, print_json, print_lines, show_table, table_of

RUNS = typer.Argument(metavar="RUN...", help="names of runs; with one, its networks are compared")


def compare(store: StoreArgument, runs: Annotated[list[str], RUNS], json_: JsonOption = False) -> None:
    """Put finished runs side by side: the settings that differ, accuracy, the main figures of each question."""
    from flows.comparing import compared

    with exits(f"layerlore compare {store}"):
        found, page = compared(opened_store(store), runs, partial(err.print, markup=False))
        if json_:
            print_json({**found.document(), "page": page})
            return
        print_lines(found.sentence().replace("\u00a0", " "))
        for table in found.tables():
            rows = [[cell.replace("\u00a0", " ") for cell in row] for row in table.rows]
            show_table(table_of([column.title for column in table.columns], rows))
        print_lines(f"comparison: {page}")
