"""Prefect's settings and the server of a run: a fault in either is one line.

Prefect itself would wait minutes for a server that has ended, and retry a damaged database.
"""

import atexit
import contextlib
import http.client
import io
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from configs.load import ConfigError, environment_with, prefect_profile
from configs.secrets import without_passwords
from tasks.cluster.clusters import interrupts_stay_here
from tasks.engine.failures import ServerError
from tasks.engine.watchdog import end_with_us

LOOK = 0.1  # seconds between two looks at a server that starts
ANSWER = 2.0  # seconds for one of its answers
STOP = 3.0  # seconds for the server to end by itself
PORTS = 3  # number of ports to try: another program may take one before the server does
CHECKED = 100_000_000  # bytes of the largest database that is checked whole before the server starts: takes a second
URL = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
CAUSE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]*(?:Error|Exception|Exit)\b.*")  # the last line of a traceback
TAKEN = "address already in use"
_OWN: dict[str, Any] = {}  # "url" and "process" of the server of this process
Settings = Any  # Any: prefect.settings.Settings, which is not loaded with this module


def check_settings() -> None:
    """Load Prefect's settings, and check the database where this run would start its own server.

    Raises
    ------
    ConfigError : a variable or file of its settings cannot be used; names it
    ServerError : the server would not start
    """
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):  # Prefect warns of what is refused below
            warnings.simplefilter("ignore")
            from prefect.settings import load_profiles

            profiles = load_profiles()
            import prefect.context  # reads all settings
    except ValidationError as error:
        raise ConfigError(_invalid(error)) from error
    except Exception as error:
        raise ConfigError(
            f"{_profiles_file()}: expected Prefect's settings in TOML, found {_line(error)}; correct it"
        ) from error
    chosen = prefect_profile()
    active = chosen or profiles.active_name
    if active not in profiles.names:
        place = "PREFECT_PROFILE" if chosen else f"{_profiles_file()}: active"
        names = ", ".join(profiles.names)
        raise ConfigError(f"{place}: expected one of {names}, the profiles in {_profiles_file()}, found {active!r}")
    settings = prefect.context.get_settings_context().settings
    if not settings.api.url and settings.server.ephemeral.enabled:
        check_database(settings)


@contextlib.contextmanager
def starting_server() -> Iterator[Callable[[], None]]:
    """Start Prefect's own server unless it runs, and give the block a function that waits for its first answer.

    The server ends with this process, and ignores Ctrl-C. Where the block ends without that wait, the server ends too.

    Raises
    ------
    ServerError : it cannot start; names the variable, folder or file
    """
    from prefect.settings import get_current_settings

    loaded = sys.modules.get("prefect.server.api.server")  # Prefect may have started one for a flow before
    if own_server_lives() or (loaded is not None and loaded.SubprocessASGIServer().running):
        yield lambda: None
        return
    settings = get_current_settings()
    first, stops = _launch(settings), contextlib.ExitStack()
    stops.callback(first.errors.close)
    stops.callback(_stop, first.process)

    def answered() -> None:
        stops.pop_all()
        found = _answering(settings, first)
        atexit.register(_stop, found.process)
        _use(found, settings)

    with stops:
        yield answered


def is_own_server(url: str | None) -> bool:
    """Return whether an address is that of a server that this process started."""
    return url is not None and url == _OWN.get("url")


def own_server_lives() -> bool:
    """Return whether a server of this process runs."""
    return "process" in _OWN and _OWN["process"].poll() is None


def _use(launched: "_Launched", settings: Settings) -> None:
    """Let Prefect reach a server of this process as it reaches a standing one: its own way imports the whole server.

    Changes Prefect's settings of this process, and not its environment: a program that it starts must not take a
    server that ends with this process for a standing one. `temporary_settings` of another server begin with them.
    """
    from prefect import context
    from prefect import settings as known

    _OWN.update(url=f"http://127.0.0.1:{launched.port}/api", process=launched.process)
    # Nothing looks for heartbeats there, and each flow would wait up to a second for their thread to end.
    changes: dict[Any, Any] = {known.PREFECT_API_URL: _OWN["url"], known.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    if not settings.server.api.csrf_protection_enabled:  # else each of Prefect's clients asks for a token in vain
        changes[known.PREFECT_CLIENT_CSRF_SUPPORT_ENABLED] = False
    now = context.GLOBAL_SETTINGS_CONTEXT
    changed = now.settings.copy_with_update(updates=changes)
    context.GLOBAL_SETTINGS_CONTEXT = context.SettingsContext(profile=now.profile, settings=changed)


@dataclass(frozen=True)
class _Launched:
    """A server that was started; its answers carry the token, and its errors go to a file."""

    process: "subprocess.Popen[bytes]"
    port: int
    token: str
    errors: IO[bytes]


def _answering(settings: Settings, launched: _Launched) -> _Launched:
    """Return a server once it answers, or one on another port where a program took the port meanwhile."""
    for attempt in range(1, PORTS + 1):
        with launched.errors:
            try:
                if _answers_in_time(launched, settings.server.ephemeral.startup_timeout_seconds):
                    return launched
                why = _cause(launched.errors)
            except BaseException:
                _stop(launched.process)
                raise
        _stop(launched.process)
        if TAKEN not in why or attempt == PORTS:
            break
        launched = _launch(settings)
    place, file = f"{_place(settings)}: Prefect's own server cannot start", _database_file(settings)
    raise ServerError(f"{place}{f' with {file}' if file else ''}: {without_passwords(why)}")


def _launch(settings: Settings) -> _Launched:
    """Start the server's process as Prefect does, with a name in its answers and a file for its errors."""
    import prefect

    port, token, errors = _free_port(), uuid.uuid4().hex, tempfile.TemporaryFile()  # noqa: SIM115
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--factory"]
    command += ["prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "error", "--lifespan", "on", "--header", f"layerlore:{token}"]
    mode = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    environment = environment_with({**mode, **settings.to_environment_variables(exclude_unset=True)})
    environment.pop("PREFECT_API_URL", None)  # of a server before it, which has ended
    with interrupts_stay_here():  # its own group: a stop of the run's group must not stop the server first
        process = subprocess.Popen(command, env=environment, stdout=errors, stderr=errors, start_new_session=True)
    end_with_us(process.pid)  # at once: a run may be killed while its server starts
    return _Launched(process, port, token, errors)


def _answers_in_time(launched: _Launched, limit: float) -> bool:
    """Return True once the server answers, False where it ends or does not answer within `limit` seconds."""
    until = time.monotonic() + limit
    while launched.process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", launched.port, timeout=ANSWER)
            with contextlib.closing(connection):
                connection.request("GET", "/api/health")
                answer = connection.getresponse()
                if answer.status == 200 and answer.headers.get("layerlore") == launched.token:
                    return True
        time.sleep(LOOK)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server."""
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cause(errors: IO[bytes]) -> str:
    """Return the line of a server's errors that gives the cause of its end."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if taken := [line for line in lines if TAKEN in line]:  # the other errors follow from this one
        return taken[0]
    causes = [line for line in lines if CAUSE.fullmatch(line)]
    return (causes or lines or ["it does not answer (PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS)"])[-1]


def check_database(settings: Settings) -> None:
    """Raise ServerError where Prefect's own server cannot use its database file."""
    file, place = _database_file(settings), _place(settings)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ServerError(
            f"{place}: expected a folder that Prefect's server can write to, found {file.parent} ({error.strerror}); "
            "choose another folder"
        ) from error
    if file.is_dir():
        raise ServerError(f"{place}: expected Prefect's database in {file}, found a folder; remove it")
    if file.exists():
        _check_sqlite(file, place)


def _database_file(settings: Settings) -> Path | None:
    """Return the file of the server's database, or None where it is not a file."""
    scheme, _, name = settings.server.database.connection_url.get_secret_value().partition(":///")
    name = name.partition("?")[0]
    kept = scheme.startswith("sqlite") and name and not name.startswith((":memory:", "file:"))
    return Path(name) if kept else None


def _check_sqlite(file: Path, place: str) -> None:
    """Raise ServerError where a database is damaged, or cannot be written."""
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=ANSWER)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
            whole = file.stat().st_size < CHECKED
            (found,) = database.execute("PRAGMA quick_check(1)" if whole else "PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:  # another server writes: this one waits for it
            return
        found = str(error)
    if isinstance(found, str) and found != "ok":
        raise ServerError(
            f"{place}: expected Prefect's database, found {file} ({' '.join(found.split())}); "
            "remove the file, which holds only Prefect's history"
        )


def _place(settings: Settings) -> str:
    """Return the variable that gives the path of the server's database."""
    return URL if "connection_url" in settings.server.database.model_fields_set else "PREFECT_HOME"


def _free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _profiles_file() -> str:
    """Return the file of Prefect's profiles, or another file of its settings that cannot be read."""
    from prefect.settings.sources import _get_profiles_path

    try:
        return str(_get_profiles_path())
    except (OSError, ValueError):  # of prefect.toml, which may give the path
        return "prefect.toml"


def _invalid(error: ValidationError) -> str:
    """Return the variable whose value Prefect refuses, and its reason."""
    first = error.errors(include_url=False)[0]
    section = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.title.removesuffix("Settings"))
    name = "_".join(["PREFECT", *filter(None, [section]), *map(str, first["loc"])]).upper()
    return f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}, found {first['input']!r}; correct it, or unset it"


def _line(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
