"""deploy.sh says in one line what is missing, before it asks a server for anything."""

import subprocess
from pathlib import Path

import pytest

from tests.deployments.conftest import clean_environment

PLACES = {
    "PREFECT_API_URL": "http://127.0.0.1:1/api",
    "LAYERLORE_HOME": "/srv/layerlore",
    "LAYERLORE_STORE": "/srv/layerlore/lore",
}


def deploy(deployments: Path, places: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the script where no server is."""
    environment = clean_environment(**places)
    command = [str(deployments / "deploy.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("name", PLACES)
def test_a_missing_variable_is_named(deployments: Path, name: str) -> None:
    done = deploy(deployments, {key: value for key, value in PLACES.items() if key != name})
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert f"{name}: set it to the" in line


@pytest.mark.parametrize("name", ["LAYERLORE_HOME", "LAYERLORE_STORE"])
def test_a_relative_place_is_refused(deployments: Path, name: str) -> None:
    done = deploy(deployments, {**PLACES, name: "lore"})
    assert done.returncode == 2
    assert done.stderr == "error: lore is relative; deployed runs do not start in this folder\n"


def test_an_s3_store_is_taken(deployments: Path) -> None:
    done = deploy(deployments, {**PLACES, "LAYERLORE_STORE": "s3://bucket/lore"})
    assert done.returncode == 1
    assert "ConnectError" in done.stderr  # it went on to the server, and there is none


@pytest.mark.parametrize("name", ["LAYERLORE_HOME", "LAYERLORE_STORE", "LAYERLORE_SCHEDULER"])
@pytest.mark.parametrize(
    "place",
    ["s3://AKIA:S3/NT@bucket/lore", "AKIA:S3NT@bucket/lore", "tls://S3NT@10.0.0.1:8786", "s3://bucket/lore?token=S3NT"],
)
def test_credentials_are_not_sent_to_prefect(deployments: Path, name: str, place: str) -> None:
    done = deploy(deployments, {**PLACES, name: place})
    assert done.returncode == 2
    assert done.stderr == "error: a place holds no credentials; runs read theirs from the environment or a profile\n"
    assert "S3" not in done.stdout
