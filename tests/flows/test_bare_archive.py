"""`explain` and `status` of the archive of a loop, without a config: sums in float64, and refusals in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.stores import open_store
from storage.updates.archives import find_archives
from tests import own_loop
from tests.flows.command import layerlore, refused
from tests.own_loop import OwnLoop

pytestmark = pytest.mark.usefixtures("wide")
MODEL = "tests.own_loop:build"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> OwnLoop:
    """A recorded loop; not to be changed."""
    return own_loop.record(tmp_path_factory.mktemp("loop") / "lore-of-mine")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three inputs of the model."""
    path = tmp_path_factory.mktemp("inputs") / "inputs.npy"
    np.save(path, own_loop.images(own_loop.samples("val")["key"].tolist()[:3]).numpy())
    return path


def test_an_input_is_explained(loop: OwnLoop, inputs: Path) -> None:
    asked = ("--model", MODEL, "--inputs", str(inputs), "--query", "2", "--layer", "4", "--count", "3")
    result = layerlore("explain", str(loop.url), *asked)
    assert result.exit_code == 0, result.output
    model = own_loop.build()
    model.load_state_dict(loop.states[-1])
    model.double().eval()
    f = model[:4](torch.from_numpy(np.load(inputs)[2:3]).double()).detach()
    z = f @ loop.states[-1]["4.weight"].double().T
    gamma = [float((z * (f @ change.T)).sum()) for change in loop.updates("4.weight")]
    sums: dict[int, float] = {}
    for value, batch in zip(gamma, loop.batches, strict=True):
        for number in batch.tolist():
            sums[number] = sums.get(number, 0.0) + value / len(batch)
    lines = result.stdout.splitlines()
    assert lines[0] == "archive of 30 updates, dense"
    assert lines[1].startswith(
        f"input 2 of {inputs}, predicted {int(model(torch.from_numpy(np.load(inputs)[2:3]).double()).argmax())} ("
    )
    parts = next(line.split() for line in lines if line.split()[:1] == ["4"] and len(line.split()) == 4)
    start = float((z * (f @ loop.states[0]["4.weight"].double().T)).sum()) / float(z.square().sum())
    assert float(parts[1]) == pytest.approx(start, abs=1e-3)
    assert float(parts[2]) == pytest.approx(1 - start, abs=1e-3)
    top = [line.split() for line in lines if line.split()[1:3] == ["gamma", "top"]]
    best = sorted(sums.values(), reverse=True)[:3]
    np.testing.assert_allclose([float(cells[5]) for cells in top], best, rtol=2e-3)
    np.testing.assert_allclose([sums[int(cells[4])] for cells in top], best, rtol=2e-3)


def test_a_replay_is_explained_with_its_program(loop: OwnLoop, inputs: Path, tmp_path: Path) -> None:
    replay = own_loop.record(tmp_path / "replay", kind="replay")
    asked = ("--model", MODEL, "--inputs", str(inputs))
    result = layerlore("explain", str(replay.url), *asked, "--program", "tests.own_loop:program")
    dense = layerlore("explain", str(loop.url), *asked)
    assert result.exit_code == dense.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "archive of 30 updates, replay"
    first, other = (
        [line.split() for line in text.splitlines() if len(line.split()) == 4] for text in (result.stdout, dense.stdout)
    )
    assert [cells[:3] for cells in first] == [cells[:3] for cells in other]  # the parts of each layer
    assert sum(" gamma " in line for line in result.stdout.splitlines()) == 20  # five at both ends of two layers
    said = refused(layerlore("explain", str(replay.url), *asked))
    assert said == (
        "--program: expected the program of a replay archive, found none; give its import path, or convert the archive "
        "with `layerlore materialise`"
    )
    convert(replay)
    converted = layerlore("explain", str(replay.url), *asked)
    assert converted.exit_code == 0, converted.output
    assert converted.stdout == dense.stdout


def convert(loop: OwnLoop, kind: str = "dense") -> None:
    """Convert the replay archive of a loop."""
    made = layerlore("materialise", str(loop.url), "--kind", kind, "--program", "tests.own_loop:program")
    assert made.exit_code == 0, made.output


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ((), "explain: expected one of --query, --sample and --image, found none of them"),
        (("--query", "0"), "explain: expected --model and --inputs for the archive of a loop, found neither"),
        (("--model", MODEL), "explain: expected --model and --inputs together, found one of them"),
        (("--model", "tests.own_loop:deep", "--inputs", "I"), "--model: expected the recorded model, with 0.weight of"),
        (("--model", "nowhere:none", "--inputs", "I"), "import path 'nowhere:none'"),
        (("--model", "tests.own_loop:pair", "--inputs", "I"), "--inputs: expected a model with logits as its output"),
        (("--model", MODEL, "--inputs", "nothing.npy"), "--inputs: expected a .npy file of numbers, found nothing.npy"),
        (("--model", MODEL, "--inputs", "I", "--query", "3"), "--query: expected 0 to 2, found 3"),
        (("--model", MODEL, "--inputs", "I", "--layer", "9"), "--layer: expected one of 0, 4, found '9'"),
        (("--model", MODEL, "--inputs", "I", "--unit", "4:0"), "explain: expected --query alone with --model"),
    ],
)
def test_what_cannot_be_explained_is_one_line(loop: OwnLoop, inputs: Path, more: tuple[str, ...], why: str) -> None:
    given = [str(inputs) if part == "I" else part for part in more]
    said = refused(layerlore("explain", str(loop.url), *given))
    assert why in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "expected a .npy file of numbers, found "),
        (b"PK\x03\x04 and no archive", "expected a .npy file of numbers, found "),
        (np.array(3.0), "found float64 ()"),
        (np.zeros((0, 3)), "found float64 (0, 3)"),
        (np.array(["a"]), "found <U1 (1,)"),
        ({"inputs": np.zeros((2, 3))}, "expected a .npy file of numbers, found "),
    ],
)
def test_inputs_that_are_no_array_of_numbers_are_one_line(
    loop: OwnLoop, tmp_path: Path, content: bytes | np.ndarray | dict[str, np.ndarray], why: str
) -> None:
    path = tmp_path / "odd.npy"
    with path.open("wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        elif isinstance(content, dict):
            np.savez(file, **content)  # type: ignore[arg-type]  # names of arrays, not options
        else:
            np.save(file, content)
    said = refused(layerlore("explain", str(loop.url), "--model", MODEL, "--inputs", str(path), "--query", "0"))
    assert said.startswith("--inputs: ")
    assert why in said
    assert len(said.splitlines()) == 1


def test_inputs_of_another_shape_are_one_line(loop: OwnLoop, tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", np.zeros((2, 3, 8, 8), np.float32))
    said = refused(layerlore("explain", str(loop.url), "--model", MODEL, "--inputs", str(tmp_path / "odd.npy")))
    assert said.startswith("--inputs: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("stop", "state"), [(None, "closed archive, 30 steps"), (20, "open archive, 16 steps")])
def test_status_of_an_archive(tmp_path: Path, stop: int | None, state: str) -> None:
    url = tmp_path / "lore"
    make: Callable[[], OwnLoop] = lambda: own_loop.record(url, stop=stop)  # noqa: E731  # read at once below
    if stop is None:
        make()
    else:
        with pytest.raises(KeyboardInterrupt):
            make()
    (path,) = find_archives(open_store(str(url)))
    size = sum(file.stat().st_size for file in (url / path / "files").rglob("*") if file.is_file())
    result = layerlore("status", str(url))
    assert result.exit_code == 0
    assert result.stdout == f"{path}: {state} of layers 0, 4, kind dense, {size / 1000:.1f} kB\n"


@pytest.mark.parametrize("content", [None, b"{}"])
def test_status_of_a_closed_archive_without_a_record_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    url = own_loop.record(tmp_path / "lore").url
    (path,) = find_archives(open_store(str(url)))
    record = min((url / path / "markers").glob("0*"))
    record.unlink() if content is None else record.write_bytes(content)
    assert record.name in refused(layerlore("status", str(url)), 1)
    assert layerlore("verify", str(url)).exit_code == 1


def test_status_of_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    url = own_loop.record(tmp_path / "lore").url
    (path,) = find_archives(open_store(str(url)))
    (url / path / "data.zarr" / "zarr.json").write_text("{}")
    said = refused(layerlore("status", str(url)), 1)
    assert said.endswith("zarr.json: expected the settings of an archive, found damage")
