"""The command `layerlore`: run, watch, plan, status, explain, card, report, verify, gc, presets."""

import signal
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax

from configs.load import ConfigError, load_config, prefect_defaults, presets
from flows.card import card
from flows.exits import FAILED
from flows.exits import exits as _exits
from flows.options import ConfigArgument, RunOption, SetOption, StoreArgument
from flows.options import opened_store as _store
from flows.terminal import err, out
from flows.terminal import print_lines as _print
from flows.terminal import show_table as _show
from flows.terminal import size_text as _bytes
from flows.terminal import table_of as _table
from flows.terminal import tracked as _tracked
from flows.terminal import watched as _watched

PACKAGES = ("configs", "flows", "storage", "tasks")

app = typer.Typer(
    help="Find what each layer of a network learned, from which examples, through which features.\n\n"
    "Start with `layerlore run digits`; `layerlore presets` lists complete configs to copy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_say = partial(err.print, markup=False)


@app.command()
def run(
    config: ConfigArgument,
    set_: SetOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="exit with 3 where another run holds a stage")] = False,
) -> None:
    """Answer the questions of a config. Stages in the store are not made again; a broken run resumes."""
    from flows.command import answer

    with _exits(f"layerlore run {config}"):
        place = answer(config, set_ or [], wait=not no_wait, say=_say)
        _print(f"report: {place}")


@app.command()
def watch(
    config: ConfigArgument,
    set_: SetOption = None,
    idle: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="end after this time without a new snapshot")
    ] = None,
) -> None:
    """Follow a training, or a growing folder of checkpoints: the concepts of each new snapshot, and the page."""
    from flows.watching import watch_config

    with _exits(f"layerlore watch {config}"):
        _print(f"report: {watch_config(config, set_ or [], idle=idle)}")


@app.command()
def plan(config: ConfigArgument, set_: SetOption = None) -> None:
    """Show the stages of a config: key, state, bytes, peak memory. Nothing is written."""
    from flows.plan import make_plan
    from flows.progress import existing_store, notes_of, planned_stages

    with _exits(f"layerlore plan {config}"):
        loaded = load_config(config, set_ or [])
        rows = planned_stages(make_plan(loaded), existing_store(loaded))
        cells = [(row.stage, row.key[:8], row.label, row.state, _bytes(row.written), _bytes(row.peak)) for row in rows]
        _show(_table(["stage", "key", "of", "state", "writes", "peak memory"], cells))
        todo = [row.written for row in rows if row.state != "complete"]
        _print(*notes_of(rows))
        out.print(f"{len(rows)} stages, {len(todo)} to make, at most {_bytes(sum(todo))} to write")


@app.command()
def status(store: StoreArgument, name: RunOption = None) -> None:
    """Show the state of each run in a store, and of the archive of a loop of one's own."""
    from flows.progress import stage_states
    from storage.runs import choose_run, records, run_names
    from storage.updates.facts import archive_states

    with _exits(f"layerlore status {store}"):
        opened = _store(store)
        for chosen in [choose_run(opened, name)] if name else run_names(opened):
            last = records(opened, chosen)[-1]
            found = stage_states(opened, [stage["path"] for stage in last.stages])
            states, done = [[stage["title"], found[stage["path"]]] for stage in last.stages], [*found.values()]
            _print(f"{chosen}: {last.document['outcome']}, {done.count('complete')} of {len(done)} stages complete")
            _show(_table(["stage", "state"], states))
        for one in () if name else archive_states(opened):
            what = f"{one.steps} steps of layers {', '.join(one.layers)}, kind {one.kind}, {_bytes(one.size)}"
            _print(f"{one.path}: {'closed' if one.closed else 'open'} archive, {what}")


@app.command()
def report(config: ConfigArgument, set_: SetOption = None) -> None:
    """Write the report of a finished run again, without Prefect or workers."""
    from flows.command import rewrite_report

    with _exits(f"layerlore report {config}"):
        _print(f"report: {rewrite_report(load_config(config, set_ or []), _say)}")


@app.command()
def explain(
    store: StoreArgument,
    query: Annotated[int | None, typer.Option("--query", min=0, help="index of the query, as in the report")] = None,
    sample: Annotated[str | None, typer.Option("--sample", help="id or key of any sample of the data set")] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="image file, prepared as samples")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="name of one layer to show; default: all layers")] = None,
    unit: Annotated[
        list[str] | None, typer.Option("--unit", metavar="LAYER:INDEX", help="only a neuron or filter; repeatable")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="number of examples shown at either end")] = 5,
    preview: Annotated[bool, typer.Option("--preview", help="approximate, at once, from the run's index")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="for the archive of a loop: what builds its model")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="FILE", help="for such an archive: .npy of the model's inputs, (Q, ...)")
    ] = None,
    program: Annotated[str | None, typer.Option(metavar="MODULE:NAME", help="for a replay: its program")] = None,
    name: RunOption = None,
) -> None:
    """Show who taught the network one of its answers: the training examples behind it, by layer.

    A query of the run is read from its stages. Other samples, image files and units are projected on the archive.
    """
    from flows.explaining import Asked, Bare, explained

    with _exits(f"layerlore explain {store}"):
        bare = Bare(model, inputs, program)
        asked = Asked(query, sample, image, layer, tuple(unit or ()), count, preview, bare)
        for found in explained(_store(store), name, asked, _watched):
            _print(found.title, found.query)
            shown = (layer,) if layer is not None else tuple(asked.units) or None
            for table in found.tables(shown, count):
                _show(_table(list(table.columns), table.to_numpy().tolist()))
            _print(*(note for name, note in found.notes.items() if shown is None or name in shown))


app.command()(card)


@app.command()
def materialise(
    store: StoreArgument,
    kind: Annotated[str, typer.Option("--kind", help="dense: every update, bit for bit; hybrid: rounded or factors")],
    name: RunOption = None,
    program: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="what begins the training of a loop of one's own again")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="largest cosine error of a hybrid archive")] = 0.001,
) -> None:
    """Convert the archives of recorded trainings into another kind, while a replay still works."""
    from flows.archives import convert_archives

    with _exits(f"layerlore materialise {store}"):
        opened = _store(store)
        for path in convert_archives(opened, kind, run=name, program=program, tolerance=tolerance, say=_say):
            _print(f"{path}: {_bytes(sum(opened.files(path).values()))} of kind {kind}")


@app.command()
def verify(store: StoreArgument) -> None:
    """Read every chunk, table and record again and name each damaged one."""
    from storage.verify import stage_paths, verify_records, verify_stages

    with _exits(f"layerlore verify {store}"):
        opened = _store(store)
        paths = stage_paths(opened)
        each = _tracked(verify_stages(opened, paths), "verifying", len(paths))
        found = [*verify_records(opened), *(line for lines in each for line in lines)]
        _print(*(f"damaged: {line}" for line in found))
        out.print(f"{len(paths)} stages read, {len(found)} damaged objects found")
        if found:
            err.print("remove the folder of each damaged stage and run its config again: it makes only those stages")
            raise typer.Exit(FAILED)


@app.command()
def gc(
    store: StoreArgument,
    yes: Annotated[bool, typer.Option("--yes", help="delete the stages; without it they are only listed")] = False,
    grace: Annotated[float, typer.Option(help="hours for which a stage without a run is kept")] = 24.0,
) -> None:
    """List, or delete with --yes, the stages that no run of the store refers to."""
    from storage.collect import find_garbage, remove_garbage

    with _exits(f"layerlore gc {store}"):
        opened = _store(store)
        freed = 0
        for garbage in find_garbage(opened, grace):
            verb = f"kept ({garbage.kept})" if garbage.kept else "deleted" if yes else "would delete"
            if not garbage.kept:
                freed += garbage.size
                if yes:
                    remove_garbage(opened, garbage.path)
            _print(f"{verb}: {garbage.path} {_bytes(garbage.size)}")
        out.print(f"{_bytes(freed)} {'freed' if yes else 'would be freed; add --yes to delete'}")


@app.command("presets")
def presets_(name: Annotated[str | None, typer.Argument(help="preset to print, to copy and change")] = None) -> None:
    """List the complete configs that come with layerlore, or print one."""
    with _exits("layerlore presets"):
        known = presets()
        if name is None:
            for preset, text in known.items():
                out.print(f"{preset:34} {text.splitlines()[0].lstrip('# ')}", markup=False)
        elif name not in known:
            raise ConfigError(f"NAME: expected one of {', '.join(known)}, found {name!r}")
        elif out.is_terminal:
            out.print(Syntax(known[name], "yaml"))
        else:
            sys.stdout.write(known[name])


def main() -> None:
    """Run the command line."""
    if (shadow := shadowed()) is not None:
        sys.exit(shadow)
    prefect_defaults()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is a Ctrl-C
    app()


def shadowed() -> str | None:
    """Return a line if another package shadows one of layerlore's four packages, else None."""
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
        if found != home / name:
            return f"package {name!r}: expected layerlore's, found {found}; install layerlore in its own environment"
    return None


if __name__ == "__main__":
    main()
