"""The command line itself: help, presets, exit codes, and how a run ends that is interrupted or meets a bug."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.load import presets
from flows import cli, exits
from storage.documents import decode
from tests.flows.command import Tree, Write, layerlore, refused

pytestmark = pytest.mark.usefixtures("wide")


def test_what_looks_like_an_emoji_or_markup_is_printed_as_it_is(
    write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ":key:" in refused(layerlore("run", ":key:"))
    monkeypatch.setattr("flows.command._flow", lambda *_: "[bold]:key:")
    result = layerlore("run", write({**tiny_tree, "store": f"{tiny_tree['store']}-[red]:key:"}))
    assert result.stdout == "report: [bold]:key:\n"
    assert result.stderr.endswith("/store-[red]:key:\n")


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "flows.cli"]
    done = subprocess.run([*command, "presets", "digits"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, presets()["digits"])
    done = subprocess.run([*command, "run", "nothing"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (exits.BAD_CONFIG, "")
    assert "error: nothing: expected a file or a preset, found neither" in done.stderr


def test_presets_are_listed_and_printed_as_they_are() -> None:
    lines = layerlore("presets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(presets())
    assert all(len(line.split()) > 3 for line in lines)
    assert layerlore("presets", "digits").stdout == presets()["digits"]
    assert refused(layerlore("presets", "none")).startswith("NAME: expected one of ")


def test_the_digits_preset_plans(tmp_path: Path) -> None:
    result = layerlore("plan", "digits", "--set", f"store={tmp_path / 'lore'}")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("90 stages, 90 to make, at most ")
    assert not (tmp_path / "lore").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((), ["run", "plan", "status", "explain", "report", "verify", "gc", "presets"]),
        (("run",), ["CONFIG", "--set", "KEY=VALUE", "--no-wait", "exit with 3"]),
        (("plan",), ["CONFIG", "--set", "Nothing is written"]),
        (("status",), ["STORE", "--run"]),
        (("report",), ["CONFIG", "without Prefect or workers"]),
        (("verify",), ["STORE", "name each damaged one"]),
        (("gc",), ["STORE", "--yes", "--grace", "hours"]),
        (("presets",), ["preset to print"]),
    ],
)
def test_help_says_what_a_command_takes(command: tuple[str, ...], expected: list[str]) -> None:
    result = layerlore(*command, "--help")
    assert result.exit_code == 0
    for text in expected:
        assert text in result.stdout, text


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    see = "see `layerlore run --help`\n"
    for command, said in (
        (("runn", "digits"), "error: No such command 'runn'. Did you mean 'run'?; see `layerlore --help`\n"),
        (("run", "digits", "--sett", "a=1"), f"error: No such option: --sett (Possible options: --set); {see}"),
        (("run",), f"error: Missing argument 'CONFIG'; {see}"),
        (
            ("run", "digits", "store=s3://AKIA:SECRET@bucket"),
            "error: Got unexpected extra argument(s) (store=s3://***@b",
        ),
        (("gc", "s", "--grace", "-1"), "error: Invalid value for '--grace': "),
        (("gc", "s", "--grace", "a\nb"), "error: Invalid value for '--grace': "),
        (("explain", "s", "--query", "-1"), "error: Invalid value for '--query': "),
        (("materialise", "s"), "error: Missing option '--kind'; see `layerlore materialise --help`\n"),
    ):
        result = layerlore(*command)
        assert result.exit_code == exits.BAD_CONFIG
        assert result.stderr.startswith(said)
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""


def test_help_without_a_command() -> None:
    result = layerlore()
    assert "Usage: " in result.stdout
    assert "error" not in result.stderr


def test_an_interrupt_says_how_to_go_on(write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.command._flow", interrupt)
    path = write(tiny_tree)
    result = layerlore("run", path)
    assert result.exit_code == exits.INTERRUPTED
    assert result.stderr.splitlines()[-1] == (
        f"interrupted; no result is lost: `layerlore run {path}` resumes this work"
    )
    record = next(Path(tiny_tree["store"], "_runs", "tiny").iterdir())
    assert decode(record.read_bytes(), "record")["outcome"] == "interrupted"


def test_a_bug_is_one_line_with_its_place(write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("float division\nby zero")

    monkeypatch.setattr("flows.command._flow", fail)
    result = layerlore("run", write(tiny_tree))
    assert result.exit_code == exits.FAILED
    assert re.fullmatch(
        r"error: ZeroDivisionError: float division by zero \(test_cli.py:\d+\)", result.stderr.splitlines()[-1]
    )
    record = next(Path(tiny_tree["store"], "_runs", "tiny").iterdir())
    found = decode(record.read_bytes(), "record")
    assert (found["outcome"], found["error"]) == ("failed", "float division by zero")


def test_another_package_in_front_is_named(tmp_path: Path) -> None:
    assert cli.shadowed() is None
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("")
    home = Path(cli.__file__).parent.parent
    program = (
        f"import sys; sys.path.insert(0, {str(home)!r})\n"
        "import flows.cli\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "[sys.modules.pop(m) for m in list(sys.modules) if m.split('.')[0] == 'tasks']\n"
        "sys.argv = ['layerlore', 'presets']\n"
        "flows.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == (
        f"package 'tasks': expected layerlore's, found {tmp_path}/tasks; install layerlore in its own environment\n"
    )


def test_the_codes_are_those_of_the_design() -> None:
    assert (exits.DONE, exits.FAILED, exits.BAD_CONFIG, exits.HELD, exits.INTERRUPTED) == (0, 1, 2, 3, 130)
