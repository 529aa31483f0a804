"""`layerlore explain` without a stage: any sample, image files and single units, streamed from the archive."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner, Result

from flows import cli, exits
from storage import s3
from storage.runs import write_record
from storage.s3 import S3Error
from storage.stages import open_finished
from tests.flows.test_explain import explain, refused, rows
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Plain, mlp_tree, train_plainly
from tests.tasks.steps.tracing.test_members import members_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A finished run of an MLP recorded in factors, three queries."""
    return new_run(members_tree(tmp_path_factory.mktemp("now") / "store")).finish()


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory, run: "Run") -> tuple[int, Path]:
    """The id of the first query, and its image as a PNG."""
    sample = int(open_finished(run.job.store, traces(run.plan)[0].queries).read("sample_id")[0])
    path = tmp_path_factory.mktemp("image") / "digit.png"
    Image.fromarray(pixels(sample)).save(path)
    return sample, path


def pixels(sample: int) -> NDArray[np.uint8]:
    """Return a digit's levels 0..16 on a scale of 255."""
    found: NDArray[np.uint8] = np.rint(load_digits().images[sample] * 255 / 16).astype(np.uint8)
    return found


def body(result: Result) -> list[str]:
    """Return the lines after title and query."""
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[2:]


def same(one: list[str], other: list[str]) -> None:
    """Compare lines of cells, numbers but for rounding: a batch of another size sums in another order."""
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        for cell, twin in zip(first.split(), second.split(), strict=True):
            assert cell == twin or abs(float(cell) - float(twin)) <= 2e-3 * abs(float(cell)) + 1e-6, (first, second)


def test_a_query_as_a_sample_has_the_same_explanation(run: "Run", digit: tuple[int, Path]) -> None:
    """Streaming gives what the stages hold."""
    sample, _ = digit
    stored, streamed = explain(run, "--query", "0"), explain(run, "--sample", str(sample))
    same(body(streamed), body(stored))
    assert streamed.stdout.splitlines()[0] == "net seed 0, from its archive"
    trace = traces(run.plan)[0]
    label, key = (open_finished(run.job.store, trace.queries).read("label")[0], f"val/{sample}")
    said = streamed.stdout.splitlines()[1]
    assert re.fullmatch(
        rf"sample {sample} of split val, key \S*{sample}, class {label}, predicted \d \([\d.]+ %\)", said
    )
    by_key = explain(run, "--sample", re.search(r"key (\S+),", said)[1])  # type: ignore[index]  # there is one
    assert by_key.stdout == streamed.stdout, key


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGB", "bmp"), ("RGBA", "png"), ("P", "gif"), ("LA", "tiff"), ("I;16", "png")]
)
def test_an_image_file_is_the_sample_that_it_shows(
    run: "Run", digit: tuple[int, Path], tmp_path: Path, mode: str, suffix: str
) -> None:
    sample, _ = digit
    path = tmp_path / f"digit.{suffix}"
    if mode == "I;16":
        Image.fromarray(pixels(sample).astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(pixels(sample)).convert(mode).save(path)
    found = explain(run, "--image", str(path))
    assert body(found) == body(explain(run, "--sample", str(sample)))
    assert found.stdout.splitlines()[1].startswith(f"image {path} (")


def test_an_image_of_another_size_is_resized_and_says_so(run: "Run", digit: tuple[int, Path], tmp_path: Path) -> None:
    sample, _ = digit
    big = np.kron(pixels(sample), np.ones((3, 3), np.uint8))
    Image.fromarray(big).save(tmp_path / "big.png")
    found = explain(run, "--image", str(tmp_path / "big.png"))
    assert found.exit_code == 0, found.output
    said = found.stdout.splitlines()[1]
    assert "(L, 24 x 24 pixels), resized to 8 x 8, predicted" in said
    assert ", class" not in said  # it does not have one


def test_any_sample_of_any_split(run: "Run") -> None:
    """A training example adds most to its own representation or nearly so; it is not a query."""
    example = int(open_finished(run.job.store, traces(run.plan)[0].influence).read("top_id")[0, 0, 0])
    found = explain(run, "--sample", str(example), "--layer", "3", "--count", "2")
    assert found.exit_code == 0, found.output
    assert f"sample {example} of split train, key " in found.stdout.splitlines()[1]
    header, *table = rows(found.stdout.splitlines(), 9)
    assert header == ["layer", "score", "end", "rank", "sample_id", "key", "class_name", "sum", "share"]
    assert {cells[0] for cells in table} == {"3"}
    assert {cells[3] for cells in table} == {"1", "2"}
    assert all(cells[5].endswith(cells[4]) for cells in table)


def test_a_unit_has_its_row_of_the_updates(tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> None:
    """Against a loop over steps in float64, with bias and decay."""
    run = new_run(mlp_tree(tmp_path / "units")).finish()
    trace = traces(run.plan)[0]
    plain = train_plainly(run, trace.training)
    ids = np.asarray(open_finished(run.job.store, trace.queries).read("sample_id"), np.int64)
    for name, query in (("1:4", 1), ("3:7", 2)):
        layer, unit = name.split(":")
        sums, init, square = unit_sums(plain, layer, int(unit), int(ids[query]))
        found = explain(run, "--query", str(query), "--unit", name, "--count", "4")
        lines = found.stdout.splitlines()
        assert found.exit_code == 0, found.output
        (parts,) = [cells for cells in rows(lines, 6) if cells[0] == name]
        np.testing.assert_allclose(float(parts[1]), init / square, rtol=2e-3, atol=1e-6)
        table = [cells for cells in rows(lines, 9) if cells[0] == name]
        assert {cells[0] for cells in rows(lines, 9)} == {"layer", name}
        ranked = sorted(sums, key=lambda example: (-sums[example], example))
        for end, order in (("top", ranked), ("bottom", ranked[::-1])):
            mine = [cells for cells in table if cells[2] == end]
            assert [int(cells[4]) for cells in mine] == order[:4]
            np.testing.assert_allclose([float(c[7]) for c in mine], [sums[i] for i in order[:4]], rtol=2e-3)


def unit_sums(plain: Plain, layer: str, unit: int, sample: int) -> tuple[dict[int, float], float, float]:
    """Return each example's sum of <z_k, D_k f + d b_k> without decay, that of the initial weights, and z_k^2."""
    f = plain.inputs(layer, np.array([sample]))[0]
    weights, biases = plain.weights[f"{layer}.weight"][:, unit], plain.weights[f"{layer}.bias"][:, unit]
    z = float(weights[-1] @ f + biases[-1])
    sums: dict[int, float] = {}
    for t, step in enumerate(plain.steps):
        moved = float((weights[t + 1] - weights[t]) @ f + biases[t + 1] - biases[t])
        decayed = float(plain.decays[f"{layer}.weight"][t, unit] @ f + plain.decays[f"{layer}.bias"][t, unit])
        for example in step.members.tolist():
            sums[example] = sums.get(example, 0.0) + z * (moved - decayed) / len(step.members)
    return sums, z * float(weights[0] @ f + biases[0]), z * z


def test_units_of_a_config_are_stages(tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> None:
    tree = members_tree(tmp_path / "store", units=["1:4", "3:2"])
    run = new_run(tree).finish()
    trace = traces(run.plan)[0]
    influence = open_finished(run.job.store, trace.influence)
    assert influence.summary["layers"] == ["1", "1:4", "3", "3:2"]
    assert influence.summary["weights"][1::2] == [64, 40]
    alone = explain(run, "--query", "1", "--unit", "3:2")
    same(body(alone), body(explain(run, "--query", "1", "--layer", "3:2")))
    units = open_finished(run.job.store, trace.contributions)
    whole = np.zeros((units.layout.arrays["gamma.3"].shape[0], 3))
    parts = np.zeros(units.layout.arrays["members.3"].shape)
    for unit in range(10):
        tree["tracing"]["units"] = [f"3:{unit}"]
        again = new_run(tree).finish()
        stage = open_finished(again.job.store, traces(again.plan)[0].contributions)
        whole += stage.read(f"gamma.3:{unit}").astype(np.float64)
        parts += stage.read(f"members.3:{unit}").astype(np.float64)
    expected = units.read("gamma.3").astype(np.float64)
    np.testing.assert_allclose(whole, expected, atol=1e-5 * np.abs(whole).max())
    members = units.read("members.3").astype(np.float64)  # each example's own part
    np.testing.assert_allclose(parts, members, atol=1e-5 * np.abs(members).max())


def test_what_cannot_be_explained_is_one_line(run: "Run", digit: tuple[int, Path], tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        return refused(explain(run, *arguments), exits.BAD_CONFIG)

    assert said() == "explain: expected one of --query, --sample and --image, found none of them"
    assert said("--query", "0", "--sample", "1").endswith("found --query and --sample")
    assert said("--query", "0", "--layer", "1", "--unit", "1:2") == (
        "--layer: expected no --unit with it, found both; leave one out"
    )
    assert said("--sample", "99999").startswith("--sample: expected an id or key of data.digits, found 99999; ids are ")
    assert said("--sample", "cat.png").startswith("--sample: expected an id or key of data.digits, found 'cat.png'; ")
    assert (
        said("--query", "0", "--unit", "fc:1")
        == "--unit: expected LAYER:INDEX with a recorded layer of 1, 3, found 'fc:1'"
    )
    assert (
        said("--query", "0", "--unit", "3") == "--unit: expected LAYER:INDEX with a recorded layer of 1, 3, found '3'"
    )
    for odd in ("3:10", "3:01", "3:\u0663", "3:"):
        assert said("--query", "0", "--unit", odd) == f"--unit: expected 3:0 to 3:9, found {odd!r}"
    assert said("--query", "0", "--unit", "3:1", "--unit", "3:1") == (
        "--unit: expected different entries, found the same one twice; remove one"
    )
    assert said("--sample", str(digit[0]), "--layer", "fc") == "--layer: expected one of 1, 3, found 'fc'"
    assert said("--image", str(tmp_path / "none.png")) == (
        f"--image: expected an image file, found {tmp_path / 'none.png'}, which does not exist"
    )
    assert said("--image", str(tmp_path)).endswith("which is a folder, not a file")
    assert said("--image", "") == "--image: expected an image file, found an empty path"
    for path in (tmp_path / "pipe", Path("/dev/zero")):  # neither ends
        if not path.exists():
            os.mkfifo(path)
        assert said("--image", str(path)) == (
            f"--image: expected an image file, found {path}, which cannot be read (is not a regular file)"
        )
    assert said("--image", "odd://a.png") == "--image: Protocol not known: odd"
    (tmp_path / "text.png").write_text("no image")
    assert said("--image", str(tmp_path / "text.png")) == (
        f"--image: corrupted or not an image: {tmp_path / 'text.png'}; replace the file or take it out"
    )
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tiff")
    assert said("--image", str(tmp_path / "float.tiff")) == "--image: image mode F cannot be converted to L"
    text = refused(explain(run, "--query", "3", "--unit", "3:1"), exits.FAILED)
    assert text == "query: expected 0 to 2 of net seed 0, found 3"


def test_an_image_on_s3_that_cannot_be_reached_is_one_line(run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    def files(*, asynchronous: bool) -> None:
        raise S3Error("s3://bucket/a.png: NoCredentialsError: Unable to locate credentials")

    monkeypatch.setattr(s3, "files", files)
    said = refused(explain(run, "--image", "s3://bucket/a.png"), exits.FAILED)
    assert said == "--image: s3://bucket/a.png: NoCredentialsError: Unable to locate credentials"


def test_a_recording_without_tracing_is_explained(
    tmp_path: Path, run: "Run", digit: tuple[int, Path], new_run: Callable[[Tree], "Run"]
) -> None:
    copy = run.at(str(tmp_path / "copy"))
    tree = {key: value for key, value in copy.tree.items() if key != "tracing"} | {"name": "plain"}
    plain = new_run(tree).finish()
    found = explain(plain, "--sample", str(digit[0]), "--run", "plain")
    assert body(found) == body(explain(run, "--sample", str(digit[0])))
    tree["networks"]["net"]["train"].pop("record")
    other = new_run({**tree, "name": "other", "store": str(tmp_path / "other")}).finish()
    text = refused(explain(other, "--sample", str(digit[0])), exits.FAILED)
    assert text == ("run other: expected a finished training with `record`, found none; `layerlore run` a config first")
    write_record(other.job.store, "old", {"name": "old", "networks": 3}, list(other.plan.stages), {})
    text = refused(explain(other, "--sample", "0", "--run", "old"), exits.BAD_CONFIG)
    assert text.startswith("run old: expected a config of this version in its record, found ")


def test_help_names_the_choices() -> None:
    result = CliRunner().invoke(cli.app, ["explain", "--help"])
    for text in ("--query", "--sample", "--image", "--unit", "LAYER:INDEX"):
        assert text in result.stdout
