"""The snapshots of a network: of a training, given weights, and folders of checkpoints."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml

from configs.load import ConfigError
from configs.schema import Config, Network, Preprocessing
from flows.plan import make_plan
from tasks.io.networks import build_model
from tasks.steps.concepts.watched import UNKNOWN_STEP, Series, probing_network, series_of
from tests.flows.command import Tree, Write, layerlore, refused

if TYPE_CHECKING:
    from tests.conftest import Run

STEPS = 16  # of the probed training


def series(tree: Tree) -> Series:
    """Return the snapshots of the only network."""
    config = Config.model_validate(tree)
    return series_of(config, make_plan(config).shared, config.concepts.networks[0], 0)  # type: ignore[union-attr]


def with_train(tree: Tree, **settings: object) -> Tree:
    """Return a config with other settings of the training; None removes one."""
    changed = copy.deepcopy(tree)
    train = {**changed["networks"]["small"]["train"], **settings}
    changed["networks"]["small"]["train"] = {key: value for key, value in train.items() if value is not None}
    return changed


def asking(tree: Tree, **settings: object) -> Tree:
    """Return a config with other settings of the question."""
    return {**copy.deepcopy(tree), "concepts": {**tree["concepts"], **settings}}


def test_all_snapshots_are_those_of_the_training(probed_tree: Tree) -> None:
    found = series(probed_tree).snapshots
    assert [(each.step, each.label) for each in found] == [(0, "step 0"), (STEPS, f"step {STEPS}")]
    assert all(each.training is not None and each.stage is not None for each in found)
    inputs = found[0].identity()[3]
    assert (inputs["network"], inputs["snapshot"]) == (found[0].training, found[0].stage)


def test_evenly_spaced_snapshots_know_their_step_only_after_the_manifest(probed_tree: Tree) -> None:
    found = series(with_train(probed_tree, snapshots=4)).snapshots
    assert [each.stage.parameters["part"] for each in found if each.stage] == [[1, 4], [1, 2], [3, 4], [1, 1]]
    assert {each.step for each in found} == {UNKNOWN_STEP}
    assert len({each.label for each in found}) == 4


def test_steps_of_the_question_need_no_snapshots_of_the_training(probed_tree: Tree) -> None:
    none = with_train(probed_tree, snapshots=None)
    found = series(asking(none, snapshots=[3, 8])).snapshots
    assert [each.step for each in found] == [3, 8]
    given = series(asking(with_train(probed_tree, snapshots=[3, 8]), snapshots="all")).snapshots
    assert [each.stage for each in found] == [each.stage for each in given]  # the same stages, shared


def test_a_training_without_snapshots_has_its_end(probed_tree: Tree) -> None:
    (found,) = series(with_train(probed_tree, snapshots=None)).snapshots
    assert (found.label, found.stage) == ("end of training", None)
    assert found.training is not None
    assert list(found.identity()[3]) == ["network"]


def test_given_weights_are_one_snapshot(probed_tree: Tree, tmp_path: Path) -> None:
    (found,) = series(given_weights(probed_tree, tmp_path)).snapshots
    assert (found.label, found.step, found.training, found.stage) == ("given weights", UNKNOWN_STEP, None, None)
    assert found.identity()[3] == {}


def given_weights(tree: Tree, folder: Path) -> Tree:
    """Return the config of a network with given weights."""
    save(folder / "weights.pt", 7)
    changed = copy.deepcopy(tree)
    network = {key: value for key, value in changed["networks"]["small"].items() if key != "train"}
    changed["networks"]["small"] = {**network, "weights": str(folder / "weights.pt")}
    return changed


def save(path: Path, seed: int, width: int = 6) -> None:
    """Write the weights of a network, of another architecture where the width is another."""
    path.parent.mkdir(exist_ok=True)
    torch.save(build_model("small-cnn", {"width": width}, seed).state_dict(), path)


def of_folder(tree: Tree, folder: Path, **settings: object) -> Tree:
    """Return the config of a folder of checkpoints."""
    return asking(given_weights(tree, folder.parent), checkpoints={"small": {"folder": str(folder), **settings}})


def test_checkpoints_are_in_the_order_of_their_numbers(probed_tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for number in (10, 9, 100, 0):
        save(folder / f"epoch_{number}.pt", number)
    (folder / "notes.txt").write_text("12")  # matches no pattern
    (folder / "epoch_5.pt").mkdir()  # is not a file
    found = series(of_folder(probed_tree, folder))
    assert [(each.step, each.label) for each in found.snapshots] == [
        *((0, "epoch_0"), (9, "epoch_9"), (10, "epoch_10"), (100, "epoch_100"))
    ]
    assert found.left_out == ()
    paths = [each.settings.weights for each in found.snapshots]
    assert paths == [str(folder / f"epoch_{number}.pt") for number in (0, 9, 10, 100)]
    assert len({each.identity()[2]["weights"] for each in found.snapshots}) == 4


def test_a_pattern_chooses_files_and_numbers(probed_tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name in ("a-007-of-9.pth", "a-012-of-9.pth", "b-001-of-9.pth"):
        save(folder / name, 1)
    found = series(of_folder(probed_tree, folder, pattern=r"^a-(\d+)-of")).snapshots
    assert [(each.step, each.label) for each in found] == [(7, "a-007-of-9"), (12, "a-012-of-9")]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a config file and returns its path."""

    def write_file(tree: Tree) -> str:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return str(tmp_path / "run.yaml")

    return write_file


@pytest.mark.parametrize(
    ("names", "pattern", "text"),
    [
        (["1.pt"], "(", "pattern: expected a regular expression, found '(': missing ), unterminated subpattern"),
        (["1.pt"], "x(\\d+)", "pattern: expected names of files that match 'x(\\\\d+)', found none in "),
        ([], r"(\d+)", "pattern: expected names of files that match"),
        (["1.pt"], r"\d+", "pattern: expected a first group of decimal digits, found '1' in 1.pt; write the number"),
        (["one.pt"], r"(\w+)", "pattern: expected a first group of decimal digits, found 'one' in one.pt"),
        (["a.pt"], r"a(\d+)?", "pattern: expected a first group of decimal digits, found 'a' in a.pt"),
        (["a1.pt", "b01.pt"], r"(\d+)", "pattern: expected a number for each file, found 1 in a1.pt and b01.pt"),
    ],
)
def test_a_bad_pattern_is_named(probed_tree: Tree, tmp_path: Path, names: list[str], pattern: str, text: str) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in names:
        save(folder / name, 1)
    with pytest.raises(ConfigError, match=r"^concepts\.checkpoints\.small\.") as caught:
        series(of_folder(probed_tree, folder, pattern=pattern))
    assert str(caught.value).startswith(f"concepts.checkpoints.small.{text}")


def test_an_absent_folder_is_named(probed_tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^concepts\.checkpoints\.small\.folder: expected a folder, found none at "):
        series(of_folder(probed_tree, tmp_path / "absent"))


def test_checkpoints_that_do_not_fit_are_left_out_and_the_others_go_on(
    probed_tree: Tree, tmp_path: Path, write: Write, new_run: Callable[[Tree], "Run"]
) -> None:
    folder = tmp_path / "checkpoints"
    save(folder / "epoch_1.pt", 1)
    save(folder / "epoch_2.pt", 2, width=8)  # of another architecture
    (folder / "epoch_3.pt").write_bytes(b"nothing")
    save(folder / "epoch_4.pt", 4)
    tree = of_folder(probed_tree, folder)
    found = series(tree)
    assert [each.label for each in found.snapshots] == ["epoch_1", "epoch_4"]
    assert len(found.left_out) == 2
    for line, name in zip(found.left_out, ("epoch_2.pt", "epoch_3.pt"), strict=True):
        assert line.startswith(f"concepts.checkpoints.small: {name} is left out: ")
        assert len(line.splitlines()) == 1
    result = layerlore("plan", write(tree))
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    for name in ("epoch_2.pt", "epoch_3.pt"):
        assert shown.count(f"concepts.checkpoints.small: {name} is left out: ") == 1
    assert [each.label for each in new_run(tree).plan.answers["concepts"][0].snapshots] == ["epoch_1", "epoch_4"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_checkpoints_that_are_not_finite_are_left_out(probed_tree: Tree, tmp_path: Path, value: float) -> None:
    folder = tmp_path / "checkpoints"
    for number in (1, 2):
        save(folder / f"epoch_{number}.pt", number)
    state = torch.load(folder / "epoch_2.pt", weights_only=True)
    name = next(name for name, weight in state.items() if weight.is_floating_point())
    state[name].view(-1)[-1] = value
    torch.save(state, folder / "epoch_2.pt")
    found = series(of_folder(probed_tree, folder))
    assert [each.label for each in found.snapshots] == ["epoch_1"]
    (line,) = found.left_out
    assert line.startswith("concepts.checkpoints.small: epoch_2.pt is left out: ")
    assert f"expected finite numbers, found NaN or infinity in {name}" in line


@pytest.mark.parametrize("content", [b"", b"x", b"no", b"\x80", b"\x80\x02", b"hello", b"{}\n", b"PK"])
def test_short_files_of_junk_are_left_out(probed_tree: Tree, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "checkpoints"
    save(folder / "epoch_1.pt", 1)
    for ending in ("pt", "pth", "safetensors"):
        (folder / f"epoch_{len(ending)}.{ending}").write_bytes(content)
    found = series(of_folder(probed_tree, folder, pattern=r"epoch_(\d+)\."))
    assert [each.label for each in found.snapshots] == ["epoch_1"]
    assert len(found.left_out) == 3
    assert all(len(line.splitlines()) == 1 for line in found.left_out)


def test_a_folder_in_which_nothing_fits_is_refused(probed_tree: Tree, tmp_path: Path, write: Write) -> None:
    folder = tmp_path / "checkpoints"
    save(folder / "epoch_1.pt", 1, width=8)
    save(folder / "epoch_2.pt", 1, width=9)
    text = refused(layerlore("plan", write(of_folder(probed_tree, folder))))
    assert text.startswith("concepts.checkpoints.small: epoch_1.pt is left out: ")
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("preprocessing", "size", "side"),
    [
        ({"mode": "L", "resize": 12}, None, 12),
        ({"mode": "L", "resize": [12, 20], "crop": 10}, None, 10),
        ({"mode": "L", "resize": [12, 20]}, None, 12),
        ({"mode": "L", "resize": 12, "crop": 10}, 40, 40),
        ({"mode": "L"}, 40, 40),
    ],
)
def test_whole_images_are_resized_to_a_square(preprocessing: Tree, size: int | None, side: int) -> None:
    network = Network.model_validate({"model": "mlp", "weights": "w.pt", "preprocessing": preprocessing})
    found = probing_network("net", network, size).preprocessing
    assert isinstance(found, Preprocessing)
    assert (found.resize, found.crop, found.convert, found.mode) == ((side, side), None, True, "L")


def test_an_unknown_size_is_named() -> None:
    network = Network.model_validate({"model": "mlp", "weights": "w.pt", "preprocessing": {"mode": "L"}})
    with pytest.raises(ValueError, match=r"^concepts\.probe\.size: expected a size of the probing images, as networks"):
        probing_network("net", network, None)
