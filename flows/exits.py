"""How a command ends: one line for each expected error, and an exit code."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from configs.load import ConfigError, visible
from configs.secrets import without_passwords
from flows.terminal import err

DONE, FAILED, BAD_CONFIG, HELD, INTERRUPTED = 0, 1, 2, 3, 130


@contextmanager
def exits(again: str, *, verbose: bool = False) -> Iterator[None]:
    """Turn each expected error into one line and an exit code; if verbose, print the traceback of any other."""
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
        if verbose:
            for line in "".join(traceback.format_exception(error)).splitlines():
                err.print(visible(without_passwords(line)), markup=False)
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        _fail(f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})", FAILED)


def _fail(text: str, code: int) -> None:
    """Print a line and exit."""
    for line in text.splitlines():
        shown = visible(without_passwords(line))
        err.print(f"error: {shown}" if code != INTERRUPTED else shown, markup=False)
    raise typer.Exit(code)
