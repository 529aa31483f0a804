"""The command `layerlore`: run, watch, plan, status, explain, card, compare, report, verify, gc, presets."""

import sys
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax

from configs.load import ConfigError, load_config, prefect_defaults, presets
from flows.card import card
from flows.cli_stores import gc, status, verify
from flows.compare import compare
from flows.exits import exits as _exits
from flows.options import ConfigArgument, JsonOption, RunOption, SetOption, StoreArgument
from flows.options import opened_store as _store
from flows.terminal import err, out, print_json
from flows.terminal import print_lines as _print
from flows.terminal import show_table as _show
from flows.terminal import size_text as _bytes
from flows.terminal import table_of as _table
from flows.terminal import watched as _watched
from flows.usage import Commands
from tasks.engine.stops import keep_stops

PACKAGES = ("configs", "flows", "storage", "tasks")
COUNT = 5  # examples that `explain` shows at either end

app = typer.Typer(
    cls=Commands,
    help="Find what each layer of a network learned, from which examples, through which features.\n\n"
    "Start with `layerlore run digits`; `layerlore presets` lists complete configs to copy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_say = partial(err.print, markup=False)


def _show_version(asked: bool) -> None:
    """Print the version where it is asked."""
    if asked:
        out.print(f"layerlore {version('layerlore')}")
        raise typer.Exit


@app.callback()
def _about(
    version_: Annotated[
        bool | None, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit")
    ] = None,
) -> None:
    """Take the options of all commands."""


@app.command()
def run(
    config: ConfigArgument,
    set_: SetOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="exit with 3 where another run holds a stage")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="a line for each partition; the traceback of an unexpected error")
    ] = False,
) -> None:
    """Answer the questions of a config. Stages in the store are not made again; a broken run resumes."""
    from flows.command import Manner, answer

    with _exits(f"layerlore run {config}", verbose=verbose):
        place = answer(config, set_ or [], Manner(wait=not no_wait, verbose=verbose, alone=True), _say)
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
def plan(config: ConfigArgument, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Show the stages of a config: key, state, bytes, peak memory. Nothing is written."""
    from flows.estimates import estimated
    from flows.plan import make_plan
    from flows.progress import existing_store, facts_of, notes_of, planned_stages

    with _exits(f"layerlore plan {config}"):
        loaded = load_config(config, set_ or [])
        store = existing_store(loaded)
        rows = planned_stages(make_plan(loaded), store)
        todo = [row for row in rows if row.state != "complete"]
        notes = [*facts_of(rows), *notes_of(rows)]
        writes, time = sum(row.written for row in todo), estimated(store, [row.stage for row in todo])
        if json_:
            total = {"to_make": len(todo), "bytes": writes, "seconds": time.seconds, "notes": notes}
            print_json({"run": loaded.name, "store": loaded.store, "stages": [asdict(row) for row in rows], **total})
            return
        cells = [(row.stage, row.key[:8], row.label, row.state, _bytes(row.written), _bytes(row.peak)) for row in rows]
        _show(_table(["stage", "key", "of", "state", "writes", "peak memory"], cells))
        _print(*notes, *time.lines())
        out.print(f"{len(rows)} stages, {len(todo)} to make, at most {_bytes(writes)} to write")


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
    count: Annotated[
        int | None, typer.Option(min=1, help=f"number of examples shown at either end; default: {COUNT}")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="only this network, or one seed of it: 'NAME seed 0'; default: all of the run")
    ] = None,
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
    from storage.updates.parameters import layer_shown

    with _exits(f"layerlore explain {store}"):
        bare, layer = Bare(model, inputs, program), None if layer is None else layer_shown(layer)
        most = COUNT if count is None else count
        asked = Asked(query, sample, image, layer, tuple(unit or ()), most, preview, bare, network, name)
        for found in explained(_store(store), asked, _watched):
            _print(found.title, found.query)
            shown = (layer,) if layer is not None else tuple(asked.units) or None
            for table in found.tables(shown, most):
                if len(table):
                    _show(_table(list(table.columns), table.to_numpy().tolist()))
            notes = (note for name, note in found.notes.items() if shown is None or name in shown)
            _print(*(line for note in notes for line in note.splitlines()))
            if count is not None and found.kept is not None and found.kept < count:
                _print(
                    f"--count {count}: a run keeps {found.kept} at either end (`tracing.k`); --sample reads its archive"
                )


app.command()(card)
app.command()(compare)


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


for command in (status, verify, gc):
    app.command()(command)


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
    keep_stops()
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
