"""The program of a user's training by its import path; every error in it names the option `--program`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from configs.imports import import_object, raised
from configs.load import ConfigError
from storage.updates.facts import ArchiveFacts
from tasks.engine.failures import caused_by_stop
from tasks.recording.archives import ARCHIVES
from tasks.recording.programs import Program

OPTIONS = "kind", "program"  # of which the recording speaks by these names


def needs_program(facts: ArchiveFacts) -> bool:
    """Return whether an archive is read by its program alone."""
    return ARCHIVES[facts.kind].recomputes


def program_at(path: str | None, *, needed: bool, otherwise: str = "") -> Program | None:
    """Return the program at an import path module:name; None for None.

    Parameters
    ----------
    needed : whether the archive cannot be read without one
    otherwise : what to do without one, as the end of a message

    Raises
    ------
    ConfigError : here and from the program: none, one that fails, or one that does not return a training
    """
    if path is None:
        if needed:
            raise ConfigError(
                f"--program: expected the program of a replay archive, found none; give its import path{otherwise}"
            )
        return None
    try:
        begin = import_object(path)
    except ValueError as error:
        raise ConfigError(f"--program: {error}") from None
    if not callable(begin):
        raise ConfigError(f"--program: expected a function at {path!r}, found a value of type {type(begin).__name__}")
    begun = _named(begin, path)

    def program() -> Any:  # Any: checked here
        made = begun()
        if not (isinstance(made, tuple) and len(made) == 3 and callable(made[2])):
            found = f"a value of type {type(made).__name__}"
            raise ConfigError(f"--program: expected (model, optimizer, step) from {path!r}, found {found}")
        model, optimizer, step = made
        return model, optimizer, _named(step, f"{path}, its step")

    return program


@contextmanager
def naming_options() -> Iterator[None]:
    """Name the option of what a recorded training says of its kind and its program."""
    from tasks.recording.replaying import ReplayMismatch

    try:
        yield
    except ReplayMismatch as error:
        raise ConfigError(f"--program: {error}") from None
    except ValueError as error:
        if str(error).partition(":")[0] not in OPTIONS:
            raise
        raise ConfigError(f"--{' '.join(str(error).split())}") from None


def _named(call: Callable[..., Any], what: str) -> Callable[..., Any]:  # Any: the user's own
    """Return a function of the user's whose errors name the option."""

    @wraps(call)
    def named(*given: object) -> Any:  # Any: the user's own
        try:
            return call(*given)
        except (Exception, SystemExit) as error:
            if caused_by_stop(error):
                raise
            raise ConfigError(f"--program: {what}: {raised(error)}") from error

    return named
