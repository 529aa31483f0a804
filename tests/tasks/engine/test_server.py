"""Prefect's own server: what keeps it from starting is one line, and no proxy stands between it and the run."""

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_PROFILES_PATH, Settings, temporary_settings

from configs.load import ConfigError, loopback_without_proxy
from tasks.engine.failures import ServerError
from tasks.engine.server import check_database, check_settings

PROXIES = {f"{kind}_PROXY": "http://127.0.0.1:9" for kind in ("HTTP", "HTTPS", "ALL")}
PROXIES |= {name.lower(): address for name, address in PROXIES.items()}


def refusal(home: Path | str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return why a server with this home would not start."""
    monkeypatch.setenv("PREFECT_HOME", str(home))
    with pytest.raises(ServerError) as caught:
        check_database(Settings())
    return str(caught.value)


@pytest.mark.parametrize("below", ["file", "file/below", "file/far/below"])
def test_a_home_that_is_a_file_or_lies_below_one_is_named(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    text = refusal(tmp_path / below, monkeypatch)
    assert text.startswith(
        f"PREFECT_HOME: expected a folder that Prefect's server can write to, found {tmp_path / below} ("
    )
    assert text.endswith("; choose another folder")
    assert "\n" not in text


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses all writes")
@pytest.mark.parametrize("home", ["/proc", "/proc/none"])
def test_a_home_that_cannot_be_written_is_named(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"found {home} (" in refusal(home, monkeypatch)


@pytest.mark.parametrize("damage", ["garbage", "inside", "folder"])
def test_a_damaged_database_is_named(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prefect.db"
    if damage == "folder":
        file.mkdir()
    elif damage == "garbage":
        file.write_bytes(bytes(range(256)) * 40)
    else:
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE run (id INTEGER PRIMARY KEY, name TEXT)")
            database.executemany("INSERT INTO run (name) VALUES (?)", [("x" * 500,)] * 200)
        database.close()
        whole = bytearray(file.read_bytes())
        whole[4096:] = b"\xff" * len(whole[4096:])
        file.write_bytes(whole)
    text = refusal(tmp_path, monkeypatch)
    assert text.startswith("PREFECT_HOME: expected Prefect's database")
    assert str(file) in text
    assert "; remove " in text


def test_the_variable_of_the_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/other.db")
    text = refusal(tmp_path, monkeypatch)
    assert text.startswith(f"PREFECT_SERVER_DATABASE_CONNECTION_URL: expected Prefect's database, found {tmp_path}")


def test_a_good_home_is_taken_and_a_busy_database_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "new"))
    check_database(Settings())
    database = sqlite3.connect(tmp_path / "new" / "prefect.db")
    database.execute("CREATE TABLE run (id INTEGER)")
    check_database(Settings())
    database.execute("BEGIN IMMEDIATE")  # as another run's server does while it writes
    monkeypatch.setattr("tasks.engine.server.ANSWER", 0.05)
    check_database(Settings())
    database.close()


@pytest.mark.parametrize(
    ("text", "chosen", "expected"),
    [
        ("[profiles.mine", None, "{file}: expected Prefect's settings in TOML, found TOMLDecodeError: "),
        (None, None, "{file}: expected Prefect's settings in TOML, found IsADirectoryError: "),
        ('active = "mine"\n', None, "{file}: active: expected one of "),
        ("[profiles.mine]\n", "other", "PREFECT_PROFILE: expected one of "),
    ],
)
def test_profiles_that_cannot_be_used_are_named(
    text: str | None, chosen: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profiles.toml"
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(file))
    with temporary_settings({PREFECT_PROFILES_PATH: file}):
        if text is None:
            file.mkdir()
        else:
            file.write_text(text)
        if chosen is not None:
            monkeypatch.setenv("PREFECT_PROFILE", chosen)
        with pytest.raises(ConfigError) as caught:
            check_settings()
    assert str(caught.value).startswith(expected.format(file=file))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a.org, localhost"}, "a.org,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a.org", "no_proxy": "b.org"}, "b.org,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_excepted_from_proxies(
    given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, given.get(name, ""))  # so that both are set back
        if name not in given:
            monkeypatch.delenv(name)
    loopback_without_proxy()
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (expected, expected)
    loopback_without_proxy()
    assert os.environ["no_proxy"] == expected


def python(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program with proxies that do not answer."""
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    command = [sys.executable, "-c", f"from configs.load import prefect_defaults\nprefect_defaults()\n{program}"]
    return subprocess.run(
        command, env={**kept, **PROXIES, **environment}, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_server_starts_behind_proxies_and_where_its_first_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        done = python(
            "from tasks.engine import server\nfrom tasks.engine.runner import start_prefect\n"
            f"free, ports = server._free_port, iter([{taken}])\n"
            "server._free_port = lambda: next(ports, None) or free()\n"
            "start_prefect()\nstart_prefect()\n"
            "from prefect.client.orchestration import get_client\n"
            "with get_client(sync_client=True) as client: print(client.hello().json(), client.api_url.port)\n"
            "import os, sys\nfrom prefect.settings import PREFECT_API_URL\n"
            "print(server.is_own_server(PREFECT_API_URL.value()), 'prefect.server.api.server' in sys.modules)\n"
            "print([name for name in os.environ if name.startswith(('PREFECT_API', 'PREFECT_CLIENT'))])",
            PREFECT_HOME=str(tmp_path),
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("👋 ")
    assert str(taken) not in done.stdout
    assert done.stdout.endswith("\nTrue False\n[]\n")  # its import would take a second; no child gets its address


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_runs_own_server_is_not_asked_for_slots_or_sent_heartbeats(tmp_path: Path) -> None:
    """Slots of the tags took Prefect's server most of a second a task, and the end of heartbeats a second a flow."""
    done = python(
        "from types import SimpleNamespace as Facts\nfrom prefect import flow, tags\n"
        "from prefect.client.orchestration import get_client\nfrom prefect.settings import get_current_settings\n"
        "from tasks.engine import runner\nfrom tasks.engine.runner import run_report, start_prefect\n"
        "store = Facts(path=lambda name: '/' + name, local=True)\n"
        "pool = Facts(release=lambda: print('released'))\n"
        "job = Facts(store=store, pool=pool, wait=True, observer=Facts(say=print))\n"
        "@flow\ndef one(): return run_report(job, 'x', lambda **_: 'index.html')\n"
        "start_prefect()\nwith tags('run:x'): print(one())\n"
        "print(get_current_settings().flows.heartbeat_frequency)\n"
        "runner.is_own_server = lambda url: False\nwith tags('run:x'): print(one())\n"  # as a standing one
        "with get_client(sync_client=True) as client:\n"
        "    print([run.tags for run in client.read_flow_runs()], sorted(run.tags for run in client.read_task_runs()))",
        PREFECT_HOME=str(tmp_path),
    )
    assert (done.returncode, done.stdout) == (
        0,
        "released\n/index.html\nNone\nreleased\n/index.html\n[['run:x'], ['run:x']] [[], ['run:x']]\n",
    ), done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protected", ["false", "true"])
def test_a_flow_runs_on_the_server_also_after_the_first_one_ended(protected: str, tmp_path: Path) -> None:
    done = python(
        "from prefect import flow\nfrom tasks.engine import server\nfrom tasks.engine.runner import start_prefect\n"
        "@flow\ndef one(): return 1\n"
        "launch, made = server._launch, []\n"
        "server._launch = lambda settings: made.append(launch(settings)) or made[-1]\n"
        "for _ in range(2):\n    start_prefect()\n    start_prefect()\n    print(one())\n"
        "    made[-1].process.kill()\n    made[-1].process.wait()\nprint(len(made))",
        PREFECT_HOME=str(tmp_path),
        PREFECT_SERVER_CSRF_PROTECTION_ENABLED=protected,
    )
    assert (done.returncode, done.stdout) == (0, "1\n1\n2\n"), done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_server_that_nobody_waits_for_is_stopped(tmp_path: Path) -> None:
    """A run whose workers cannot start leaves no server behind."""
    done = python(
        "from tasks.engine import server\nfrom tasks.engine.runner import starting_prefect\n"
        "launch, made = server._launch, []\n"
        "server._launch = lambda settings: made.append(launch(settings)) or made[0]\n"
        "try:\n    with starting_prefect():\n        print(made[0].process.poll())\n        raise KeyError('x')\n"
        "except KeyError:\n    print(made[0].process.poll() is not None)",
        PREFECT_HOME=str(tmp_path),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\nTrue\n", ""), done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_server_that_ends_says_why_in_one_line(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "prefect.db") as database:  # of a Prefect that is newer than this one
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('abcdef')")
    database.close()
    done = python(
        "from tasks.engine.failures import ServerError\nfrom tasks.engine.runner import start_prefect\n"
        "try: start_prefect()\nexcept ServerError as error: print(error)",
        PREFECT_HOME=str(tmp_path),
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"PREFECT_HOME: Prefect's own server cannot start with {tmp_path}/prefect.db: ")
    assert line.endswith("Can't locate revision identified by 'abcdef'")
