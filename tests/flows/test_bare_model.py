"""`explain` of the archive of a loop: a model that is one layer, other dtypes, and inputs that cannot be used."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests import flat_loop
from tests.flows.command import layerlore, refused

pytestmark = pytest.mark.usefixtures("wide")
LOOP = "tests.flat_loop"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense archive; not to be changed."""
    return flat_loop.record(tmp_path_factory.mktemp("flat") / "lore")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two inputs."""
    path = tmp_path_factory.mktemp("inputs") / "inputs.npy"
    np.save(path, flat_loop.IMAGES[:2].numpy())
    return str(path)


def gammas(dtype: torch.dtype = torch.float64) -> tuple[float, list[float]]:
    """The share of the initial weights and the contribution of each step to the first input, in float64."""
    model = flat_loop.build(dtype)
    optimizer, weights = torch.optim.SGD(model.parameters(), lr=0.1), [model.weight.detach().double().clone()]
    for number in range(flat_loop.STEPS):
        chosen = flat_loop.IDS[number % 3 :: 3]
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(flat_loop.IMAGES[chosen].to(dtype)), flat_loop.LABELS[chosen]))
        optimizer.step()
        weights.append(model.weight.detach().double().clone())
    f = flat_loop.IMAGES[0].double()
    z = weights[-1] @ f
    steps = [float(z @ ((after - before) @ f)) for before, after in pairwise(weights)]
    return float(z @ (weights[0] @ f)) / float(z @ z), steps


def check(lines: list[str], name: str, dtype: torch.dtype, exact: float) -> None:
    """Compare the share of init and the best example with the loop in float64."""
    init, steps = gammas(dtype)
    (parts, *ranked) = [line.split(name)[1].split() for line in lines if line.lstrip().startswith(name)]
    assert float(parts[0]) == pytest.approx(init, abs=exact)
    sums = [sum(steps[label::3]) / 20 for label in range(3)]
    best = {row[1]: float(row[4]) for row in ranked if row[2] == "1"}
    assert best == {"top": pytest.approx(max(sums), rel=10 * exact), "bottom": pytest.approx(min(sums), rel=10 * exact)}


@pytest.mark.parametrize("kind", ["dense", "hybrid", "replay"])
def test_a_model_that_is_one_layer_is_explained(kind: str, inputs: str, tmp_path: Path) -> None:
    url = flat_loop.record(tmp_path / "lore", kind)
    more = ("--program", f"{LOOP}:program") if kind == "replay" else ()
    for layer in ((), ("--layer", "(the model itself)"), ("--layer", "")):
        result = layerlore("explain", url, "--model", f"{LOOP}:build", "--inputs", inputs, *more, *layer)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0] == f"archive of 6 updates, {kind}"
        assert [line.split() for line in lines].count(["layer"]) == 0  # no table without rows
        if kind != "replay":  # which splits a step by the examples' own gradients
            check(lines, "(the model itself)", torch.float32, 1e-3)
    said = refused(
        layerlore("explain", url, "--model", f"{LOOP}:build", "--inputs", inputs, *more, "--layer", "fc"),
    )
    assert said == "--layer: expected one of (the model itself), found 'fc'"
    assert " steps of layers (the model itself), kind " in layerlore("status", url).stdout


@pytest.mark.parametrize(
    ("kind", "name"),
    [("dense", "wide"), ("replay", "wide"), ("dense", "half"), ("hybrid", "brain"), ("hybrid", "wide")],
)
def test_weights_of_other_dtypes_are_explained_in_float32(kind: str, name: str, inputs: str, tmp_path: Path) -> None:
    dtype = flat_loop.DTYPES[name]
    url = flat_loop.record(tmp_path / "lore", kind, dtype)
    more = ("--program", f"{LOOP}:wide_program") if kind == "replay" else ()
    asked = [("explain", url, "--model", f"{LOOP}:{each}", "--inputs", inputs, *more) for each in (name, "build")]
    first, other = (layerlore(*one) for one in asked)
    assert first.exit_code == other.exit_code == 0, first.output + other.output
    assert first.stdout == other.stdout
    if kind != "replay":
        check(first.stdout.splitlines(), "(the model itself)", dtype, 2e-3)


@pytest.mark.parametrize("name", ["masked", "narrow"])
def test_an_output_may_be_infinite_or_narrow(name: str, inputs: str, tmp_path: Path) -> None:
    """Classes that a network leaves out have the logit -inf; the shares of the layer are those of the plain model."""
    url = flat_loop.record(tmp_path / "lore", "dense")
    results = [layerlore("explain", url, "--model", f"{LOOP}:{each}", "--inputs", inputs) for each in (name, "build")]
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert results[0].stdout.splitlines()[2:] == results[1].stdout.splitlines()[2:]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            np.full((2, 4), 1e30, np.float32),
            "--inputs: expected finite values in the network, found others in layer (the model itself) for input 1, "
            "whose largest number is 1e+30; scale inputs as in the training",
        ),
        (
            np.full((2, 4), 3e38, np.float32),
            "--inputs: expected finite values in the network, found others in layer (the model itself) for input 1, "
            "whose largest number is 3e+38; scale inputs as in the training",
        ),
        (
            np.full((2, 4), -1e300),
            "--inputs: expected numbers of at most 3.4e+38, as float32 holds, in input 1, found -1e+300",
        ),
        (np.full((2, 4), np.nan), "--inputs: expected finite numbers in input 1, found others"),
    ],
)
def test_inputs_that_are_too_large_are_one_line(flat: str, tmp_path: Path, values: np.ndarray, said: str) -> None:
    np.save(tmp_path / "in.npy", values)
    asked = ("--model", f"{LOOP}:build", "--inputs", str(tmp_path / "in.npy"), "--query", "1")
    result = layerlore("explain", flat, *asked)
    assert refused(result) == said
    assert result.stdout == ""


def test_inputs_that_are_no_file_are_one_line(flat: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in (
        (str(tmp_path / "pipe"), f"{tmp_path / 'pipe'}, which cannot be read (is not a regular file)"),
        ("/dev/zero", "/dev/zero, which cannot be read (is not a regular file)"),
        (str(tmp_path), f"{tmp_path}, which is a folder, not a file"),
        ("none.npy", "none.npy, which does not exist"),
        ("", "an empty path"),
        ("s3://bucket/in.npy", "the URL s3://bucket/in.npy"),
    ):
        said = refused(layerlore("explain", flat, "--model", f"{LOOP}:build", "--inputs", path))
        assert said == f"--inputs: expected a .npy file of numbers, found {found}"


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (("--preview",), "--preview"),
        (("--run", "foo"), "--run"),
        (("--network", "a", "--unit", "fc:1"), "--network and --unit"),
    ],
)
def test_options_of_runs_are_refused(flat: str, inputs: str, more: tuple[str, ...], found: str) -> None:
    said = refused(layerlore("explain", flat, "--model", f"{LOOP}:build", "--inputs", inputs, *more))
    assert said == f"explain: expected --query alone with --model, found {found}; leave it out"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (":", "--model: import path ':': expected module:name, such as my_code:build"),
        (f"{LOOP}:", f"--model: import path '{LOOP}:': expected module:name, such as my_code:build"),
        (
            f"{LOOP}:leaves",
            f"--model: model '{LOOP}:leaves' with arguments {{}}: expected a result, found an exit with 7",
        ),
        (f"{LOOP}:STEPS", f"--model: model '{LOOP}:STEPS': expected a function, found a int"),
        (
            f"{LOOP}:failing_program",
            f"--model: model '{LOOP}:failing_program' with arguments {{}}: key 'learning rate' is missing",
        ),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(flat: str, inputs: str, model: str, said: str) -> None:
    assert refused(layerlore("explain", flat, "--model", model, "--inputs", inputs)) == said


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (":", "--program: import path ':': expected module:name, such as my_code:build"),
        (f"{LOOP}:STEPS", f"--program: expected a function at '{LOOP}:STEPS', found a value of type int"),
        (f"{LOOP}:failing_program", f"--program: {LOOP}:failing_program: key 'learning rate' is missing"),
        (
            f"{LOOP}:no_program",
            f"--program: expected (model, optimizer, step) from '{LOOP}:no_program', found a value of type NoneType",
        ),
        (f"{LOOP}:leaves", f"--program: {LOOP}:leaves: expected a result, found an exit with 7"),
        (
            f"{LOOP}:other_program",
            "--program: step 0, layer '(the model itself)': expected its recorded weights ",
        ),
        (f"{LOOP}:wide_program", "--program: expected bias of float32 (3,), as recorded, found float64 (3,); "),
    ],
)
@pytest.mark.parametrize("command", ["explain", "materialise"])
def test_a_program_that_cannot_be_used_is_one_line(
    replay: str, inputs: str, command: str, program: str, said: str
) -> None:
    more = ("--model", f"{LOOP}:build", "--inputs", inputs) if command == "explain" else ("--kind", "dense")
    result = layerlore(command, replay, *more, "--program", program)
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.output
    assert lines[-1].startswith(f"error: {said}")
    assert "Error" not in lines[-1]
    assert ".py:" not in lines[-1]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A replay archive; its conversions are refused."""
    return flat_loop.record(tmp_path_factory.mktemp("replay") / "lore", "replay")


def test_what_cannot_be_converted_names_its_option(replay: str, tmp_path: Path) -> None:
    hybrid = flat_loop.record(tmp_path / "lore", "hybrid")
    assert refused(layerlore("materialise", hybrid, "--kind", "dense")) == (
        "--kind: expected an archive of kind replay or dense, which have every bit, found hybrid; record the training "
        "again to have another kind"
    )
    assert refused(layerlore("materialise", replay, "--kind", "dense")) == (
        "--program: expected the program of a replay archive, found none; give its import path"
    )
