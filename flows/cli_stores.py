"""Commands that ask a store about all its runs and stages: status, verify, gc."""

from dataclasses import asdict
from typing import Annotated

import typer

from flows.exits import FAILED, exits
from flows.options import JsonOption, RunOption, StoreArgument, opened_store
from flows.terminal import age_text, err, out, print_json, print_lines, show_table, size_text, table_of, tracked

MOST_MISSING = 10  # stages of a run that are listed without --stages


def status(
    store: StoreArgument,
    name: RunOption = None,
    stages: Annotated[bool, typer.Option("--stages", help="show the state of every stage")] = False,
    json_: JsonOption = False,
) -> None:
    """Show a line for each run in a store, its stages that are not complete, and archives of loops and conversions."""
    from flows.standing import standings
    from storage.runs import choose_run, run_names
    from storage.updates.facts import archive_states, conversion_states
    from storage.updates.parameters import shown_layer

    with exits(f"layerlore status {store}"):
        opened = opened_store(store)
        runs = standings(opened, [choose_run(opened, name)] if name else run_names(opened))
        archives, converted = ((), ()) if name else (archive_states(opened), conversion_states(opened))
        if json_:
            lines = [{**asdict(one), "complete": one.complete, "missing": one.missing} for one in runs]
            listed = {"archives": [asdict(one) for one in archives], "conversions": [asdict(one) for one in converted]}
            print_json({"store": opened.url, "runs": lines, **listed})
            return
        for one in runs:
            done = f"{one.complete} of {len(one.stages)} stages complete"
            report = f"report {one.report}" if one.report else "no report"
            print_lines(f"{one.name}: {one.state}, {done}, {age_text(one.age)} ago, {size_text(one.size)}, {report}")
            if one.error:
                print_lines(f"  {one.error}")
            shown = [*one.stages.items()] if stages else [*one.missing.items()][:MOST_MISSING]
            if shown:
                show_table(table_of(["stage", "state"], shown))
            if not stages and (more := len(one.missing) - len(shown)):
                print_lines(f"  and {more} more; --stages shows every stage")
        for each in archives:
            layers = ", ".join(map(shown_layer, each.layers))
            what = f"{each.steps} steps of layers {layers}, kind {each.kind}, {size_text(each.size)}"
            print_lines(f"{each.path}: {'closed' if each.closed else 'open'} archive, {what}")
        for made in converted:
            print_lines(f"{made.path}: conversion of {made.archive}, kind {made.kind}, {size_text(made.size)}")


def verify(store: StoreArgument, json_: JsonOption = False) -> None:
    """Read every chunk, table and record again and name each damaged one."""
    from storage.verify import stage_paths, verify_records, verify_stages

    with exits(f"layerlore verify {store}"):
        opened = opened_store(store)
        paths = stage_paths(opened)
        each = tracked(verify_stages(opened, paths), "verifying", len(paths))
        found = [*verify_records(opened), *(line for lines in each for line in lines)]
        if json_:
            print_json({"store": opened.url, "stages": len(paths), "damaged": found})
        else:
            print_lines(*(f"damaged: {line}" for line in found))
            out.print(f"{len(paths)} stages read, {len(found)} damaged objects found")
        if found:
            err.print("remove the folder of each damaged stage and run its config again: it makes only those stages")
            raise typer.Exit(FAILED)


def gc(
    store: StoreArgument,
    yes: Annotated[bool, typer.Option("--yes", help="delete the stages; without it they are only listed")] = False,
    grace: Annotated[float, typer.Option(min=0.0, help="hours for which a stage without a run is kept")] = 24.0,
    json_: JsonOption = False,
) -> None:
    """List, or delete with --yes, the stages that no run of the store refers to."""
    from storage.collect import find_garbage, remove_garbage

    with exits(f"layerlore gc {store}"):
        opened = opened_store(store)
        found = []
        for garbage in find_garbage(opened, grace):
            if yes and not garbage.kept:
                remove_garbage(opened, garbage.path)
            found.append(garbage)
            if not json_:
                verb = f"kept ({garbage.kept})" if garbage.kept else "deleted" if yes else "would delete"
                print_lines(f"{verb}: {garbage.path} {size_text(garbage.size)}")
        freed = sum(garbage.size for garbage in found if not garbage.kept)
        if json_:
            print_json({"store": opened.url, "garbage": [asdict(one) for one in found], "bytes": freed, "deleted": yes})
        else:
            out.print(f"{size_text(freed)} {'freed' if yes else 'would be freed; add --yes to delete'}")
