"""The command line: codes, one-line errors, and what each command prints."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from configs.load import presets
from flows import cli
from storage.claims import claim
from storage.documents import decode, encode

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Write = Callable[[Tree], str]

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals of one width, without colours."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a config file and returns its path."""

    def write_file(tree: Tree) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return str(path)

    return write_file


def layerlore(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, list(arguments))


def refused(result: Result, code: int = cli.BAD_CONFIG) -> str:
    """Return the error text after checking the code, its length, and that it is no traceback."""
    assert result.exit_code == code, (result.exit_code, result.output)
    lines = [line for line in result.stderr.splitlines() if " stages to make, in " not in line]
    assert 1 <= len(lines) <= 4, lines
    assert all(line.startswith("error: ") for line in lines), lines
    assert "Traceback" not in result.output
    return "\n".join(line.removeprefix("error: ") for line in lines)


# ------------------------------------------------------------------------------------- bad configs


@pytest.mark.parametrize("command", ["run", "plan", "report"])
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nonsense=1", "nonsense: unknown key"),
        ("seeds=zero", "seeds: input should be a valid tuple, found 'zero'"),
        ("networks.small.weights=w.pt", "networks.small: a network has either `weights` or `train`, here it has both"),
        (
            "interpretation.selectors={rndm: {}}",
            "interpretation.selectors.rndm: unknown method 'rndm'; known: random, moderate",
        ),
        (
            "interpretation.interpreters={nmf: {}}",
            "interpretation.interpreters.nmf: unknown method 'nmf'; known: ice",
        ),
        (
            "interpretation.selectors={moderate: {centre: mean}}",
            "interpretation.selectors.moderate.centre: unknown parameter; known: center, min_per_class, repeats",
        ),
        ("interpretation.selectors={random: {repeats: 0}}", "random.repeats: an integer of at least 1, found 0"),
        ("interpretation.selectors={random: {repeats: true}}", "random.repeats: an integer of at least 1, found True"),
        ("interpretation.selectors={random: {seed: 1}}", "interpretation.selectors.random.seed: unknown parameter"),
        ("interpretation.selectors={moderate: {center: middle}}", "interpretation.selectors.moderate: center"),
        ("interpretation.selectors={moderate: {center: [mean]}}", "interpretation.selectors.moderate: center"),
        ("interpretation.selectors={moderate: {min_per_class: x}}", "interpretation.selectors.moderate: min_per_class"),
        (
            "interpretation.interpreters={ice: {component: 3}}",
            "interpretation.interpreters.ice.component: unknown parameter; known: components",
        ),
        ("interpretation.interpreters={ice: {components: 0}}", "interpretation.interpreters.ice: components"),
        ("interpretation.interpreters={ice: {components: few}}", "interpretation.interpreters.ice: components"),
    ],
)
def test_a_bad_config_is_one_line_and_writes_nothing(
    write: Write, tiny_tree: Tree, command: str, override: str, expected: str
) -> None:
    result = layerlore(command, write(tiny_tree), "--set", override)
    assert expected in refused(result)
    assert not Path(tiny_tree["store"]).exists()


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("interpretation.learn", "trian", "data.digits: no split 'trian'; splits: train, val"),
        ("networks.small.train.split", "trian", "data.digits: no split 'trian'; splits: train, val"),
        ("networks.small.train.evaluate", "test", "data.digits: no split 'test'; splits: train, val"),
        ("interpretation.layer", "conv9", "networks.small: "),
        ("interpretation.layer", "penultimate", "networks.small: layer 'penultimate' gives features of shape"),
        ("networks.small.model", "small-cn", "networks.small: "),
        ("networks.small.model", "nowhere:net", "nowhere"),
        ("networks.small.arguments", {"widht": 4}, "networks.small: "),
        ("networks.small.arguments", {"classes": 5}, "networks.small: "),
        ("networks.small.preprocessing", {"mode": "RGB"}, "networks.small: "),
        ("networks.small.preprocessing", "ResNet50_Weights.NONE", "ResNet50_Weights.NONE"),
        ("data.digits", {"source": "npz", "paths": {"train": "no.npz", "val": "no.npz"}}, "no.npz"),
        ("data.digits", {"source": "image-folder", "paths": {"train": "/no/t", "val": "/no/v"}}, "/no/t"),
        ("data.digits", {"source": "import", "object": "nowhere:data"}, "nowhere"),
        ("cluster.memory_limit", "300MB", "cluster.memory_limit: stage "),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    write: Write, tiny_tree: Tree, command: str, key: str, value: object, expected: str
) -> None:
    *parents, last = key.split(".")
    below = tiny_tree
    for parent in parents:
        below = below[parent]
    below[last] = value
    assert expected in refused(layerlore(command, write(tiny_tree)))
    assert not Path(tiny_tree["store"]).exists()


CLUSTERS: list[tuple[Tree, str]] = [
    *(
        (
            {"kind": kind, "device": "cuda"},
            "cluster.device: cuda, but this machine has no usable GPU; set it to auto or cpu",
        )
        for kind in ("serial", "threads", "local")
    ),
    *(
        ({"kind": kind, "gpu_resource": "GPU"}, f"cluster.gpu_resource: kind {kind} has no 'GPU'; leave it out")
        for kind in ("serial", "threads", "local")
    ),
    ({"kind": "os.system"}, "cluster.kind: os.system is no class of Dask clusters"),
    ({"kind": "pathlib.Path"}, "cluster.kind: pathlib.Path is no class of Dask clusters"),
    (
        {"kind": "local", "arguments": {"proceses": True}},
        "cluster.arguments.proceses: LocalCluster takes no such argument; did you mean processes?",
    ),
    (
        {"kind": "threads", "arguments": {"zzz": True}},
        "cluster.arguments.zzz: LocalCluster takes no such argument",
    ),
]


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(("cluster", "expected"), CLUSTERS)
def test_a_cluster_that_cannot_be_is_one_line_and_writes_nothing(
    write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch, command: str, cluster: Tree, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert refused(layerlore(command, write({**tiny_tree, "cluster": cluster}))) == expected
    assert not Path(tiny_tree["store"]).exists()


@pytest.mark.parametrize("url", ["memory://x", "ftp://h/x", "foo://x", "http://h/x"])
def test_a_store_of_another_kind_is_one_line(write: Write, tiny_tree: Tree, url: str) -> None:
    path = write(tiny_tree)
    expected = f"store: expected a local folder, file:///folder or s3://bucket/prefix, found '{url}'"
    for command in ("run", "plan", "report"):
        assert refused(layerlore(command, path, "--set", f"store={url}")) == f"{path}: {expected}"
    for command in ("status", "verify", "gc"):
        assert refused(layerlore(command, url)) == expected


def test_a_seed_beyond_64_bits_is_one_line(write: Write, tiny_tree: Tree) -> None:
    text = refused(layerlore("run", write(tiny_tree), "--set", f"seeds=[{2**63}]"))
    assert text.endswith(f"seeds.0: input should be less than or equal to {2**63 - 1}, found {2**63}")
    assert len(text.splitlines()) == 1
    assert not Path(tiny_tree["store"]).exists()


def test_a_crop_larger_than_the_images_is_refused_by_the_plan(write: Write, tiny_tree: Tree) -> None:
    tiny_tree["networks"]["small"]["preprocessing"] = {"mode": "L", "crop": 9}
    assert refused(layerlore("plan", write(tiny_tree))) == (
        "networks.small: sample all/0: preprocessing.crop 9 is larger than the image, 8 x 8 pixels; "
        "lower it, or resize to at least that"
    )


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
    assert (done.returncode, done.stdout) == (cli.BAD_CONFIG, "")
    assert "error: nothing: no such file, and no preset of that name" in done.stderr


def test_a_missing_file_of_weights_is_named(write: Write, tiny_tree: Tree) -> None:
    tiny_tree["networks"]["small"] = {"model": "small-cnn", "weights": "/no/weights.pt", "preprocessing": {"mode": "L"}}
    assert "/no/weights.pt" in refused(layerlore("run", write(tiny_tree)))


def test_too_little_memory_names_the_setting_and_what_to_do(write: Write, tiny_tree: Tree) -> None:
    text = refused(layerlore("plan", write(tiny_tree), "--set", "cluster.memory_limit=0.3GB"))
    assert re.fullmatch(
        r"cluster\.memory_limit: stage \w+ of .* needs \d\.\d GB in a worker, 0\.3GB are allowed; raise it, .*", text
    )


def test_too_little_disk_names_the_setting_and_what_to_do(
    write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    text = refused(layerlore("run", write(tiny_tree)))
    assert text.startswith("store: 0.0 GB may be written, 0.0 GB are free at ")
    assert "choose another place" in text
    assert not Path(tiny_tree["store"]).exists()


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_bytes(b"\xff")
    assert refused(layerlore("run", str(tmp_path / "empty.yaml"))).endswith("empty.yaml: not UTF-8 text")
    assert "no such file, and no preset of that name" in refused(layerlore("run", "nothing"))


def test_a_store_by_a_newer_layerlore_is_left_alone(write: Write, tiny_tree: Tree) -> None:
    store = Path(tiny_tree["store"])
    store.mkdir()
    (store / "layerlore-store").write_text("2\n")
    for command in (["run", write(tiny_tree)], ["status", str(store)], ["verify", str(store)], ["gc", str(store)]):
        assert "a newer layerlore wrote this store (format 2, this one reads up to 1)" in refused(
            layerlore(*command), cli.FAILED
        )
    assert [p.name for p in store.iterdir()] == ["layerlore-store"]


def test_a_store_that_is_none(tmp_path: Path) -> None:
    for command in ("status", "verify", "gc"):
        text = refused(layerlore(command, str(tmp_path / "none")), cli.FAILED)
        assert text == f"{tmp_path}/none: no layerlore store is here; `layerlore run` makes one"
    assert not (tmp_path / "none").exists()


def test_a_store_that_cannot_be_written(write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    text = refused(layerlore("run", write(tiny_tree)), cli.FAILED)
    assert text.endswith("cannot write a store here: Permission denied; choose another `store`")
    assert not Path(tiny_tree["store"]).exists()


# ----------------------------------------------------------------------------------- a finished run


def test_plan_says_what_is_there_and_what_is_not(write: Write, finished_run: "Run") -> None:
    tree = {**finished_run.tree, "interpretation": {**finished_run.tree["interpretation"], "budgets": [0.25, 1.0]}}
    before = sorted(Path(finished_run.config.store).rglob("*"))
    done = layerlore("plan", write(finished_run.tree))
    assert done.stdout.splitlines()[-1] == "17 stages, 0 to make, at most 0 B to write"
    result = layerlore("plan", write(tree))
    assert result.exit_code == 0
    assert "missing" in next(line for line in result.stdout.splitlines() if "moderate 0.25" in line)
    assert "complete" in next(line for line in result.stdout.splitlines() if " training " in line)
    assert re.search(r"^17 stages, 10 to make, at most [\d.]+ kB to write$", result.stdout, re.M), result.stdout
    assert sorted(Path(finished_run.config.store).rglob("*")) == before


def test_plan_calls_a_started_stage_partial(write: Write, copied_run: "Run") -> None:
    spec = next(iter(copied_run.plan.learn.values()))
    Path(copied_run.config.store, spec.path, "markers", "complete.json").unlink()
    lines = layerlore("plan", write(copied_run.tree)).stdout.splitlines()
    assert "partial" in next(line for line in lines if spec.key[:8] in line)


def test_a_finished_run_is_answered_without_prefect_and_dask(write: Write, copied_run: "Run") -> None:
    script = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "loaded = [m for m in ('prefect', 'distributed', 'dask') if m in sys.modules]\n"
        "print('loaded', code, loaded)"
    )
    path = write(copied_run.tree)
    assert layerlore("report", path).exit_code == 0
    command = [sys.executable, "-c", script, "run", path]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()
    assert lines == [f"report: {copied_run.config.store}/reports/tiny/index.html", "loaded 0 []"]
    assert done.stderr == f"everything is there already: 17 stages in {copied_run.config.store}\n"
    assert time.monotonic() - started < 60  # about 4 on a quiet machine
    records = Path(copied_run.config.store, "_runs", "tiny")
    assert len(list(records.iterdir())) == 1  # nothing ran, so nothing is recorded


def test_status_of_a_store(copied_run: "Run") -> None:
    done = layerlore("status", copied_run.config.store)
    assert done.stdout.splitlines()[0] == "tiny: done, 17 of 17 stages complete"
    spec = copied_run.plan.cells[0].evaluation
    shutil.rmtree(Path(copied_run.config.store, spec.path))
    lines = layerlore("status", copied_run.config.store, "--run", "tiny").stdout.splitlines()
    assert lines[0] == "tiny: done, 16 of 17 stages complete"
    assert "missing" in next(line for line in lines if spec.key[:8] in line)
    assert "no run 'other'; known: tiny" in refused(
        layerlore("status", copied_run.config.store, "--run", "other"), cli.FAILED
    )


def test_report_is_written_from_the_store_alone(write: Write, copied_run: "Run") -> None:
    shutil.rmtree(Path(copied_run.config.store, "reports"), ignore_errors=True)
    result = layerlore("report", write(copied_run.tree))
    page = Path(copied_run.config.store, "reports", "tiny", "index.html")
    assert result.stdout.strip() == f"report: {page}"
    assert page.is_file()
    shutil.rmtree(Path(copied_run.config.store, copied_run.plan.cells[0].evaluation.path))
    text = refused(layerlore("report", write(copied_run.tree)))
    assert text == f"{copied_run.config.store}: 1 stages are not complete; `layerlore run` the config first"


# ------------------------------------------------------------------------------------------ damage


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_verify_finds_nothing_in_a_sound_store(finished_run: "Run") -> None:
    result = layerlore("verify", finished_run.config.store)
    assert (result.exit_code, result.stdout) == (0, "17 stages read, 0 damaged things found\n")


def test_verify_names_a_flipped_byte_in_every_kind_of_file(copied_run: "Run") -> None:
    store = Path(copied_run.config.store)
    expected = []
    for kind in ("manifest", "training", "activations", "selection", "features", "evaluation", "gallery"):
        stage = sorted((store / kind).iterdir())[0]
        victim = sorted(f for f in (*stage.rglob("c/**/*"), *stage.rglob("files/*")) if f.is_file())[-1]
        flip(victim)
        expected.append(victim.relative_to(store).as_posix())
    flip(sorted((store / "selection").iterdir())[1] / "markers" / "000000.json")
    result = layerlore("verify", str(store))
    assert result.exit_code == cli.FAILED
    lines = result.stdout.splitlines()
    assert lines[-1] == "17 stages read, 8 damaged things found"
    for place in expected:
        assert sum(place in line for line in lines) == 1, (place, lines)
    (hint,) = result.stderr.splitlines()
    assert hint.startswith("remove each damaged stage's folder and run its config again")


@pytest.mark.parametrize("kind", ["manifest", "training", "activations", "selection", "features"])
def test_a_reading_stage_refuses_damage(copied_run: "Run", kind: str) -> None:
    store = Path(copied_run.config.store)
    readers = {
        "manifest": ("activations", "manifest.parquet"),
        "training": ("activations", "weights"),
        "activations": ("features", "maps"),
        "selection": ("features", "order"),
        "features": ("evaluation", "components"),
    }
    reader, what = readers[kind]
    for later in ("activations", "selection", "features", "evaluation", "gallery"):
        if later == reader or kind in ("manifest", "training"):
            shutil.rmtree(store / later)
    for stage in (store / kind).iterdir():
        for victim in (*stage.rglob(f"{what}/c/**/*"), *stage.glob(f"files/{what}*")):
            if victim.is_file():
                flip(victim)
    with pytest.raises(Exception, match=what) as caught:
        copied_run.finish()
    assert kind in str(caught.value)
    assert not list((store / reader).glob("*/markers/complete.json"))


# ------------------------------------------------------------------------------------------------ gc


def age(folder: Path, hours: float) -> None:
    """Make everything below a folder older."""
    then = time.time() - 3600 * hours
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def test_gc_lists_then_deletes_only_what_no_run_refers_to(copied_run: "Run") -> None:
    store = Path(copied_run.config.store)
    assert layerlore("gc", str(store)).stdout == "0 B would be freed; add --yes to delete\n"
    record = next((store / "_runs" / "tiny").iterdir())
    kept = decode(record.read_bytes(), "record")
    orphans = [spec.path for spec in copied_run.plan.stages if spec.stage in ("evaluation", "gallery")]
    record.unlink()
    kept["stages"] = [stage for stage in kept["stages"] if stage["path"] not in orphans]
    record.write_bytes(encode(kept))
    young = layerlore("gc", str(store), "--yes")
    assert len(re.findall(r"kept \(written \d\.\d h ago\)", young.stdout)) == len(orphans) == 5
    for path in orphans:
        age(store / path, 30)
    listed = layerlore("gc", str(store))
    assert listed.stdout.count("would delete: ") == 5
    assert all((store / path / "markers" / "complete.json").exists() for path in orphans)
    with claim(copied_run.job.store, orphans[0], "someone"):
        deleted = layerlore("gc", str(store), "--yes")
    assert f"kept ({orphans[0].replace('/', '-')} is held by someone" in deleted.stdout
    assert deleted.stdout.count("deleted: ") == 4
    assert [(store / path).exists() for path in orphans] == [True, False, False, False, False]
    assert layerlore("verify", str(store)).exit_code == 0


def test_gc_stops_at_a_damaged_record(copied_run: "Run") -> None:
    flip(next(Path(copied_run.config.store, "_runs", "tiny").iterdir()))
    text = refused(layerlore("gc", copied_run.config.store, "--yes"), cli.FAILED)
    assert "remove that file once its run is not needed, then collect again" in text
    assert layerlore("verify", copied_run.config.store).exit_code == cli.FAILED


# ------------------------------------------------------------------------------------------ the rest


def test_presets_are_listed_and_printed_as_they_are() -> None:
    lines = layerlore("presets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(presets())
    assert all(len(line.split()) > 3 for line in lines)
    assert layerlore("presets", "digits").stdout == presets()["digits"]
    assert refused(layerlore("presets", "none")).startswith("no preset 'none'; presets: ")


def test_the_digits_preset_plans(tmp_path: Path) -> None:
    result = layerlore("plan", "digits", "--set", f"store={tmp_path / 'lore'}")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("80 stages, 80 to make, at most ")
    assert not (tmp_path / "lore").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((), ["run", "plan", "status", "explain", "report", "verify", "gc", "presets"]),
        (("run",), ["CONFIG", "--set", "KEY=VALUE", "--no-wait", "exit with 3"]),
        (("plan",), ["CONFIG", "--set", "Nothing is written"]),
        (("status",), ["STORE", "--run"]),
        (("report",), ["CONFIG", "without starting anything"]),
        (("verify",), ["STORE", "name each damaged one"]),
        (("gc",), ["STORE", "--yes", "--grace", "hours"]),
        (("presets",), ["print this one"]),
    ],
)
def test_help_says_what_a_command_takes(command: tuple[str, ...], expected: list[str]) -> None:
    result = layerlore(*command, "--help")
    assert result.exit_code == 0
    for text in expected:
        assert text in result.stdout, text


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    assert layerlore("runn", "digits").exit_code == 2
    assert layerlore("run", "digits", "--sett", "a=1").exit_code == 2
    assert layerlore("run").exit_code == 2


def test_an_interrupt_says_how_to_go_on(write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.command._flow", interrupt)
    path = write(tiny_tree)
    result = layerlore("run", path)
    assert result.exit_code == cli.INTERRUPTED
    assert result.stderr.splitlines()[-1] == (
        f"interrupted; nothing is lost: `layerlore run {path}` goes on where this stopped"
    )
    record = next(Path(tiny_tree["store"], "_runs", "tiny").iterdir())
    assert decode(record.read_bytes(), "record")["outcome"] == "interrupted"


def test_a_bug_is_one_line_with_its_place(write: Write, tiny_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("float division\nby zero")

    monkeypatch.setattr("flows.command._flow", fail)
    result = layerlore("run", write(tiny_tree))
    assert result.exit_code == cli.FAILED
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
        f"another package 'tasks' in {tmp_path}/tasks shadows layerlore's; use an environment of layerlore's own\n"
    )


def test_the_codes_are_those_of_the_design() -> None:
    assert (cli.DONE, cli.FAILED, cli.BAD_CONFIG, cli.HELD, cli.INTERRUPTED) == (0, 1, 2, 3, 130)
