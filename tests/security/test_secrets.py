"""Secrets of the environment: in no byte that a run writes or prints, whether it ends well or not."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr
from PIL import Image
from typer.testing import CliRunner

from flows import cli, exits
from tasks.steps.report import write_report
from tests.shared import prefect_home

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

SENTINEL = "S3NT1NEL"  # in every secret
SECRETS = {
    "AWS_ACCESS_KEY_ID": f"AKIA{SENTINEL}1",
    "AWS_SECRET_ACCESS_KEY": f"{SENTINEL}/2+x",
    "AWS_SESSION_TOKEN": f"{SENTINEL}3==",
    "AWS_ENDPOINT_URL": f"http://key:{SENTINEL}/4@127.0.0.1:9/?token={SENTINEL}4",
    "PREFECT_API_AUTH_STRING": f"admin:{SENTINEL}5",
    "PREFECT_SERVER_API_AUTH_STRING": f"admin:{SENTINEL}5",
    "LAYERLORE_TOKEN": f"{SENTINEL}6",
}


def leaks(*roots: Path) -> list[str]:
    """Return the files below some folders that hold a secret, in their bytes or in what these are packed from."""
    files = [file for root in roots for file in root.rglob("*") if file.is_file()]
    return [str(file) for file in files if SENTINEL.encode() in file.read_bytes() or packed(file)]


def packed(file: Path) -> bool:
    """Say whether a compressed table or array holds a secret."""
    if file.suffix == ".parquet":
        return SENTINEL in pd.read_parquet(io.BytesIO(file.read_bytes())).to_csv()
    if file.suffix == ".npz":
        with np.load(file) as archive:
            return any(SENTINEL.encode() in archive[name].tobytes() for name in archive.files)
    if file.name == "zarr.json" and '"array"' in file.read_text():
        return SENTINEL.encode() in np.asarray(zarr.open_array(str(file.parent), mode="r")[...]).tobytes()
    return False


def test_planted_secrets_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"x": "{SENTINEL}"}}')
    pd.DataFrame({"a": [f"x{SENTINEL}"] * 100}).to_parquet(tmp_path / "b.parquet", compression="zstd")
    np.savez_compressed(tmp_path / "c.npz", a=np.frombuffer(SENTINEL.encode() * 100, np.uint8))
    array = zarr.create_array(str(tmp_path / "d"), shape=(800,), dtype="u1", fill_value=0)
    array[:] = np.frombuffer(SENTINEL.encode() * 100, np.uint8)
    (tmp_path / "e.txt").write_text("S3NT")
    found = {Path(leak).name for leak in leaks(tmp_path)}
    assert found - {"0"} == {"a.json", "b.parquet", "c.npz", "zarr.json"}  # a chunk may show it as it is


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with secrets."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("secrets")
def test_a_run_and_its_report_hold_no_secret(tiny_tree: Tree, new_run: "Callable[[Tree], Run]", tmp_path: Path) -> None:
    run = new_run(tiny_tree).finish()
    write_report(run.job.store, run.plan.made(), created="now", reused=frozenset())
    assert len(list(Path(run.config.store).rglob("*.html"))) >= 2
    assert leaks(tmp_path) == []
    for command in ("status", "verify", "gc"):
        result = CliRunner().invoke(cli.app, [command, run.config.store])
        assert result.exit_code == exits.DONE, result.output
        assert SENTINEL not in result.output


@pytest.mark.usefixtures("secrets")
def test_an_error_holds_no_secret(
    tmp_path: Path, tiny_tree: Tree, new_run: "Callable[[Tree], Run]", monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tree["networks"]["small"]["model"] = "nowhere:net"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    for arguments in (["plan", str(path)], ["run", str(path)], ["status", tiny_tree["store"]], ["plan", "none.yaml"]):
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code in (exits.FAILED, exits.BAD_CONFIG)
        assert SENTINEL not in result.output


# -------------------------------------------------------------------------------------------- whole runs


@pytest.fixture
def layerlore(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that runs a command in a process of its own, with all secrets and a Prefect home of its own."""
    (tmp_path / "work").mkdir()
    prefect_home(tmp_path_factory, tmp_path / "prefect")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_"))}
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "work")}
    root = str(Path(__file__).resolve().parents[2])
    environment: Mapping[str, str] = {**kept, **SECRETS, **home, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}

    def call(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        return subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True, cwd=tmp_path / "work", timeout=400
        )

    return call


def image_config(folder: Path) -> Tree:
    """Return a config over two classes of four images, of which one is not an image."""
    for split in ("train", "val"):
        for name in ("a", "b"):
            for number in range(4):
                place = folder / "images" / split / name / f"{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(place)
    (folder / "images" / "train" / "b" / "3.png").write_bytes(b"no image")
    return {
        "name": "broken",
        "store": str(folder / "broken"),
        "cluster": {"kind": "local", "workers": 1},
        "data": {"d": {"source": "image-folder", "paths": {s: str(folder / "images" / s) for s in ("train", "val")}}},
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 4, "classes": 2},
                "preprocessing": {"mode": "L"},
                "train": {"data": "d", "epochs": 1, "optimizer": {"lr": 0.1}},
            }
        },
    }


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_runs_by_prefect_and_dask_write_and_print_no_secret(
    layerlore: Callable[..., "subprocess.CompletedProcess[str]"], tiny_tree: Tree, tmp_path: Path
) -> None:
    codes = []
    for tree in ({**tiny_tree, "cluster": {"kind": "local", "workers": 1}}, image_config(tmp_path)):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
        result = layerlore("run", str(tmp_path / "run.yaml"), PREFECT_LOGGING_LEVEL="DEBUG")
        codes.append(result.returncode)
        assert SENTINEL not in result.stdout + result.stderr
    assert codes == [exits.DONE, exits.FAILED]
    assert "3.png" in result.stderr
    databases = [file for file in (tmp_path / "prefect").rglob("*.db*") if file.stat().st_size]
    assert databases
    assert any(re.search(rb"flow.run", file.read_bytes()) for file in databases)
    assert leaks(tmp_path) == []


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_an_s3_store_that_does_not_answer_is_named_without_secrets(
    layerlore: Callable[..., "subprocess.CompletedProcess[str]"], tiny_tree: Tree, tmp_path: Path
) -> None:
    tree = {**tiny_tree, "store": "s3://bucket/prefix"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    result = layerlore("run", str(tmp_path / "run.yaml"), AWS_MAX_ATTEMPTS="1")
    assert result.returncode != exits.DONE
    assert "bucket" in result.stderr
    assert "Traceback" not in result.stderr
    assert SENTINEL not in result.stdout + result.stderr
    assert leaks(tmp_path) == []


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_secrets_of_a_config_reach_no_store_and_no_database(
    layerlore: Callable[..., "subprocess.CompletedProcess[str]"], tiny_tree: Tree, tmp_path: Path
) -> None:
    planted = {"env": {"AWS_SECRET_ACCESS_KEY": f"{SENTINEL}7"}}
    plain, secret = tmp_path / "work" / "plain.yaml", tmp_path / "secret.yaml"
    tiny_tree["cluster"] = {"kind": "local", "workers": 1}
    plain.write_text(yaml.safe_dump(tiny_tree))
    secret.write_text(yaml.safe_dump({**tiny_tree, "cluster": {**tiny_tree["cluster"], "arguments": planted}}))
    for arguments in (("run", str(secret)), ("run", str(plain), "--set", f"cluster.arguments={planted}")):
        result = layerlore(*arguments)
        assert result.returncode == exits.BAD_CONFIG
        assert "cluster.arguments.env.AWS_SECRET_ACCESS_KEY" in result.stderr
        assert SENTINEL not in result.stdout + result.stderr
    assert leaks(tmp_path) == [str(secret)]
    assert not Path(tiny_tree["store"]).exists()
