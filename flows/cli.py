"""The command `layerlore`: run, watch, plan, status, explain, report, verify, gc, presets."""

import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.syntax import Syntax

from configs.load import ConfigError, load_config, prefect_defaults, presets, visible
from configs.secrets import without_passwords
from flows.terminal import err, out
from flows.terminal import print_lines as _print
from flows.terminal import show_table as _show
from flows.terminal import size_text as _bytes
from flows.terminal import table_of as _table

if TYPE_CHECKING:
    from storage.stores import Store

DONE, FAILED, BAD_CONFIG, HELD, INTERRUPTED = 0, 1, 2, 3, 130
PACKAGES = ("configs", "flows", "storage", "tasks")

app = typer.Typer(
    help="Find what each layer of a network learned, from which examples, through which features.\n\n"
    "Start with `layerlore run digits`; `layerlore presets` lists complete configs to copy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_say = partial(err.print, markup=False)

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a preset")]
StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="local folder or s3://bucket/prefix, or a config that names its store")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as store=/data/lore; repeatable"),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="name of the run, needed where the store holds several")
]


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
    """Show the state of each run in a store."""
    from flows.progress import stage_states
    from storage.runs import choose_run, records, run_names

    with _exits(f"layerlore status {store}"):
        opened = _store(store)
        for chosen in [choose_run(opened, name)] if name else run_names(opened):
            last = records(opened, chosen)[-1]
            found = stage_states(opened, [stage["path"] for stage in last.stages])
            states, done = [[stage["title"], found[stage["path"]]] for stage in last.stages], [*found.values()]
            _print(f"{chosen}: {last.document['outcome']}, {done.count('complete')} of {len(done)} stages complete")
            _show(_table(["stage", "state"], states))


@app.command()
def report(config: ConfigArgument, set_: SetOption = None) -> None:
    """Write the report of a finished run again, without Prefect or workers."""
    from flows.command import rewrite_report

    with _exits(f"layerlore report {config}"):
        _print(f"report: {rewrite_report(load_config(config, set_ or []), _say)}")


@app.command()
def explain(
    store: StoreArgument,
    query: Annotated[int, typer.Option("--query", min=0, help="index of the query, as in the report")],
    layer: Annotated[str | None, typer.Option(help="name of one layer to show; default: all layers")] = None,
    count: Annotated[int, typer.Option(min=1, help="number of examples shown at either end")] = 5,
    name: RunOption = None,
) -> None:
    """Show who taught the network one of its answers: the training examples behind a query, by layer."""
    from storage.runs import choose_run, records
    from tasks.steps.tracing.explain import explanations

    with _exits(f"layerlore explain {store}"):
        opened = _store(store)
        for found in explanations(opened, records(opened, choose_run(opened, name, "influence"))[-1], query, layer):
            _print(found.title, found.query)
            parts, examples = found.parts, found.examples[found.examples["rank"] <= count]
            if layer is not None:
                parts, examples = parts[parts["layer"] == layer], examples[examples["layer"] == layer]
            for table in (parts.astype(object).where(parts.notna(), "unknown"), examples):
                _show(_table(list(table.columns), table.to_numpy().tolist()))
            for note in (note for name, note in found.notes.items() if layer in (None, name)):
                _print(note)


@app.command()
def verify(store: StoreArgument) -> None:
    """Read every chunk, table and record again and name each damaged one."""
    from storage.verify import stage_paths, verify_records, verify_stages

    with _exits(f"layerlore verify {store}"):
        opened = _store(store)
        paths, quiet = stage_paths(opened), not err.is_terminal
        each = track(verify_stages(opened, paths), "verifying", len(paths), console=err, transient=True, disable=quiet)
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


@contextmanager
def _exits(again: str) -> Iterator[None]:
    """Turn each expected error into one line and an exit code."""
    from storage.claims import StageHeldError
    from tasks.engine.failures import FAILURES, caused_by_stop

    stopped = f"interrupted; no result is lost: `{again}` resumes this work"
    try:
        yield
    except typer.Exit:
        raise  # the command has printed why
    except ConfigError as error:
        _fail(str(error), BAD_CONFIG)
    except StageHeldError as error:
        _fail(str(error), HELD)
    except FAILURES as error:
        _fail(" ".join(str(error).split()), FAILED)
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), FAILED)
    except KeyboardInterrupt:
        _fail(stopped, INTERRUPTED)
    except Exception as error:
        if caused_by_stop(error):
            _fail(stopped, INTERRUPTED)
        logging.getLogger("layerlore").debug("", exc_info=error)
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        _fail(f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})", FAILED)


def _store(given: str) -> "Store":
    """Open the store at a URL, or the store of a config."""
    from configs.section import check_store
    from storage.stores import NoStoreError, open_store

    try:
        check_store(given)
        return open_store(given)
    except ValueError as error:
        raise ConfigError(f"store: {error}") from None
    except NoStoreError:
        if not (Path(given).suffix in (".yaml", ".yml") or given in presets()):
            raise
    return open_store(load_config(given).store)


def _fail(text: str, code: int) -> None:
    """Print a line and exit."""
    for line in text.splitlines():
        shown = visible(without_passwords(line))
        err.print(f"error: {shown}" if code != INTERRUPTED else shown, markup=False)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
