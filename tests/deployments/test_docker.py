"""The image's recipe, parsed: what it copies is there, what it runs is pinned, and who runs in it is not root."""

import fnmatch
import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deployments" / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:  # Any: the parser's
    """The instructions, without comments."""
    package = pytest.importorskip("dockerfile_parse", reason="needs the package dockerfile-parse")
    parsed = package.DockerfileParser(path=str(FILE), cache_content=True)
    return [step for step in parsed.structure if step["instruction"] != "COMMENT"]


def values(steps: list[dict[str, Any]], instruction: str) -> list[str]:  # Any: the parser's
    """Return what an instruction is given, each time."""
    return [step["value"] for step in steps if step["instruction"] == instruction]


def test_the_instructions_are_known_and_in_order(steps: list[dict[str, Any]]) -> None:  # Any: the parser's
    names = [step["instruction"] for step in steps]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert names.index("USER") > max(number for number, name in enumerate(names) if name == "RUN")
    assert json.loads(values(steps, "CMD")[-1]) == ["layerlore", "--help"]


def test_python_is_pinned_to_the_constraints(steps: list[dict[str, Any]]) -> None:  # Any: the parser's
    (base,) = values(steps, "FROM")
    name, _, tag = base.partition(":")
    assert name == "python"
    major, minor, patch = tag.partition("-")[0].split(".")
    assert patch.isdigit()
    dependencies, ours = (shlex.split(run) for run in values(steps, "RUN") if run.startswith("pip"))
    assert dependencies == ["pip", "install", "--constraint", f"deployments/constraints-py{major}{minor}.txt", "."]
    assert ours == ["pip", "install", "--no-deps", "--editable", "."]


def test_what_is_copied_is_there_and_not_ignored(steps: list[dict[str, Any]]) -> None:  # Any: the parser's
    copied = [source for value in values(steps, "COPY") for source in value.split()[:-1]]
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {package.rstrip("*") for package in setuptools["packages"]["find"]["include"]} <= set(copied)
    assert {f"{module}.py" for module in setuptools["py-modules"]} <= set(copied)
    lines = FILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in, source
    assert let_in == {source.split("/")[0] for source in copied}
    kept_out = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    for secret in ("ca.key", "client.pem"):
        assert any(fnmatch.fnmatch(secret, rule) for rule in kept_out), secret


def test_it_does_not_run_as_root_and_holds_no_secret(steps: list[dict[str, Any]]) -> None:  # Any: the parser's
    (user,) = values(steps, "USER")
    assert int(user) > 0
    assert f"useradd --uid {user}" in values(steps, "RUN")[0]
    settings = " ".join(values(steps, "ENV")).upper()
    assert [word for word in ("PASSWORD", "SECRET", "AUTH", "AWS_") if word in settings] == []
    assert {"OMP_NUM_THREADS=1", "LAYERLORE_HOME=/SRV/LAYERLORE"} <= set(settings.split())
