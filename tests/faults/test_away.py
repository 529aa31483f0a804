"""Servers that are not there, or go away and stay away: one line and exit code 1."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.kills.runs import Commands
from tasks.engine.failures import ServerError
from tasks.engine.reaching import reaching_prefect
from tests.conftest import tiny_config
from tests.deployments.conftest import clean_environment


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "[Errno 111] Connection refused"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
        (RuntimeError("Failed to reach API at http://x/api/"), "Failed to reach API at http://x/api/"),
    ],
)
def test_an_absent_prefect_server_is_one_line(error: Exception, messages: str) -> None:
    standing = temporary_settings({PREFECT_API_URL: "http://a:word@x/api"})
    with pytest.raises(ServerError) as caught, standing, reaching_prefect():
        raise error
    assert str(caught.value) == (
        f"Prefect's server http://***@x/api: expected an answer, found {messages}; run again once it answers: "
        "no result is lost"
    )
    own = temporary_settings(restore_defaults={PREFECT_API_URL})
    with pytest.raises(ServerError) as caught, own, reaching_prefect():
        raise error
    assert str(caught.value) == (
        f"Prefect's server that this run started: expected an answer, found {messages}; run again: no result is lost"
    )


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="ours"), reaching_prefect():
        raise RuntimeError("ours")


QUIET = """
import logging
import prefect
from prefect.logging.configuration import setup_logging
from tasks.engine.runner import quiet_prefect
quiet_prefect()
setup_logging()
for name in ("", "prefect", "prefect._internal.concurrency", "prefect.flow_runs", "prefect.server.api", "uvicorn"):
    logging.getLogger(name).error("Service 'EventsWorker' failed to process item")
"""


def test_no_logger_of_prefect_prints(tmp_path: Path) -> None:
    environment = clean_environment(PREFECT_HOME=str(tmp_path), PREFECT_LOGGING_TO_API_ENABLED="false")
    found = subprocess.run([sys.executable, "-c", QUIET], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout + found.stderr == ""


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_run_without_its_prefect_server_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_config(str(tmp_path / "store")), sort_keys=False))
    environment = clean_environment(
        PREFECT_HOME=str(tmp_path / "prefect"), PREFECT_API_URL="http://someone:word@127.0.0.1:9/api", NO_COLOR="1"
    )
    commands = Commands(tmp_path, environment, warm=False)
    run = commands.start("run", str(tmp_path / "run.yaml"))
    assert run.wait() == 1, run.text()
    (error,) = [line for _, line in run.lines if line.startswith("error: ")]
    assert error.startswith("error: Prefect's server http://***@127.0.0.1:9/api: ")
    assert "Traceback" not in run.text()
    assert "someone:word" not in run.text()
