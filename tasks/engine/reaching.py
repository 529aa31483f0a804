"""Requests to Prefect's server that does not answer: an error in one line, or nothing where a run can do without."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import SettingsContext, get_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, Settings, temporary_settings

from configs.secrets import without_passwords
from tasks.engine.failures import ServerError
from tasks.engine.server import is_own_server

UNREACHED = "Failed to reach API"  # how Prefect's own error begins
_HASTY: dict[int, tuple[Settings, Settings]] = {}  # by the identity of the first, which stays in memory


@contextmanager
def reaching_prefect() -> Iterator[None]:
    """Report a Prefect server that does not answer in one line; Prefect's client gives up after a minute.

    Raises
    ------
    ServerError : the server did not answer
    """
    try:
        yield
    except Exception as error:
        if not _of_server(error):
            raise
        url = PREFECT_API_URL.value()
        standing = url is not None and not is_own_server(url)
        address, again = (without_passwords(url), " once it answers") if standing else ("that this run started", "")
        cause = error.__cause__ or error if str(error).startswith(UNREACHED) else error
        why = " ".join(str(cause).split()) or type(cause).__name__
        raise ServerError(
            f"Prefect's server {address}: expected an answer, found {why}; run again{again}: no result is lost"
        ) from error


@contextmanager
def optional() -> Iterator[None]:
    """Ignore a server that does not answer: a run must not fail or wait for Prefect's display of it."""
    context = get_settings_context()
    try:
        with SettingsContext(profile=context.profile, settings=_hasty(context.settings)):
            yield
    except Exception as error:
        if not _of_server(error):
            raise


def _hasty(settings: Settings) -> Settings:
    """Return the present settings with one retry of a request; Prefect takes 30 ms to make them each time."""
    if id(settings) not in _HASTY:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}) as hasty:
            _HASTY[id(settings)] = settings, hasty
    return _HASTY[id(settings)][1]


def _of_server(error: Exception) -> bool:
    """Say whether an error comes from a request to Prefect's server: the HTTP library's, or Prefect's own."""
    return str(error).startswith(UNREACHED) or any(
        cls.__module__.partition(".")[0] == "httpx" for cls in type(error).__mro__
    )
