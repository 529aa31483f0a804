"""Bad settings and files of question 3: one line that names the key, code 2, and nothing is written."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.flows.command import Tree, Write, layerlore, on_commands, refused
from tests.probed import COUNT, FEATURES
from tests.tasks.io.broden_folder import save_mask, write_broden

DETECTORS, CAPTIONER = "concepts.detectors", "concepts.captioner"
Change = Callable[[Tree, Path], None]
BAD: list[tuple[str, object, str]] = [
    (DETECTORS, {"clip": {}}, "concepts.detectors.clip: unknown detector 'clip'; known: cos, cos_cubed, wpmi, soft_"),
    (
        DETECTORS,
        {"soft_wpmi": {"topk": 3}},
        "concepts.detectors.soft_wpmi: topk: expected a parameter of soft_wpmi (top_k, a",
    ),
    (
        DETECTORS,
        {"cos": {"top_k": 3}},
        "concepts.detectors.cos: top_k: expected a parameter of cos (no parameters), found",
    ),
    (DETECTORS, {"soft_wpmi": {"top_k": 65}}, "concepts.detectors.soft_wpmi.top_k: expected at most the 64 probing"),
    (DETECTORS, {"soft_wpmi": {}}, "concepts.detectors.soft_wpmi.top_k: expected at most the 64 probing images, found"),
    (DETECTORS, {"wpmi": {"top_k": 5, "temperature": 0}}, "concepts.detectors.wpmi.temperature: expected a number abo"),
    (DETECTORS, {"wpmi": {"top_k": 5, "tau": "high"}}, "concepts.detectors.wpmi.tau: expected a number, 'calibrated' "),
    (DETECTORS, {"network-dissection": {"quantil": 0.1}}, f"{DETECTORS}.network-dissection.quantil: unknown parameter"),
    (
        DETECTORS,
        {"network-dissection": {"quantile": 2}},
        f"{DETECTORS}.network-dissection.quantile: expected a share 0 to 1",
    ),
    (DETECTORS, {"network-dissection": {"maps": "none"}}, f"{DETECTORS}.network-dissection.maps: expected stored or"),
    ("concepts.layers", ["2", "absent"], "networks.small: layer 'absent': expected a module, found none; close: "),
    ("concepts.layers", {"other": ["2"]}, "concepts: layers: expected layers of small, found other"),
    ("concepts.pool", "first-token", "networks.small: layer '2': expected tokens for `concepts.pool: first-token`"),
    ("concepts.probe", {"data": "probe"}, "concepts.probe.size: expected a size of the probing images, as networks."),
    ("concepts.probe", {"data": "probe", "size": 32, "split": "val"}, "data.probe: expected one of the splits all, fo"),
    ("concepts.track", {"2": [6]}, "concepts.track.2: expected neurons below 6, found 6"),
    ("concepts.snapshots", [0, 17], "train.snapshots: expected at most 16, the steps of small seed 0, found step 17"),
    ("concepts.anchors", ["red", "unheard"], "concepts.anchors: features "),
    ("concepts.anchors", [], "concepts.anchors: expected a word, found none; add words, or leave `anchors` out"),
    ("concepts.words", ["absent.txt"], "concepts.words: file absent.txt does not exist"),
    ("concepts.text", "minilm", "concepts.text: text encoder minilm: expected package "),
    ("concepts.plane", "umap", "concepts.plane: expected the package umap-learn for umap, found none; install "),
    ("concepts.image_text", {"kind": "tiny", "steps": 0}, "concepts.image_text.steps: input should be greater than"),
    ("concepts.image_text", {"kind": "features", "path": "absent.npz"}, "concepts.image_text.path: file absent.npz do"),
    ("concepts.image_text", {"kind": "open-clip", "path": "x.pt", "model": "RN50"}, "concepts.image_text.path: open_c"),
    (DETECTORS, {"milan": {}}, "concepts: captioner: expected a captioner with `detectors`, found none"),
    (CAPTIONER, {"encoder": "small", "layers": ["2"]}, "concepts: captioner: expected detector milan"),
    ("concepts.checkpoints", {"small": {"folder": "absent"}}, "concepts.checkpoints.small.folder: expected a folder"),
]


def with_value(tree: Tree, key: str, value: object) -> Tree:
    """Return a config with another value of a key."""
    changed = copy.deepcopy(tree)
    *parents, last = key.split(".")
    below = changed
    for parent in parents:
        below = below[parent]
    below[last] = value
    return changed


def check(result: Any, expected: str, store: str) -> None:  # Any: the result of a command
    """Check that a command refused in one line, and that it wrote nothing."""
    text = refused(result)
    assert expected in text, text
    assert len(text.splitlines()) == 1
    assert not list(Path(store).rglob("complete.json"))


@pytest.mark.parametrize(("command", "key", "value", "expected"), on_commands(BAD, step=9))
def test_a_bad_setting_is_one_line(
    probed_tree: Tree,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    key: str,
    value: object,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if value == "umap" or value == "minilm":
        monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
        monkeypatch.setattr("tasks.io.model_files.find_spec", lambda *_: None)
    check(layerlore(command, write(with_value(probed_tree, key, value))), expected, probed_tree["store"])


def words(tree: Tree, folder: Path) -> None:
    (folder / "words.txt").write_text("red\nunheard\nnever seen\n")
    tree["concepts"]["words"] = [str(folder / "words.txt")]


def tiny_words(tree: Tree, folder: Path) -> None:
    words(tree, folder)
    tree["concepts"]["image_text"] = {"kind": "tiny", "steps": 1}


def no_labels(tree: Tree, folder: Path) -> None:
    dissect(tree, folder, [str(label) for label in range(10)])
    tree["concepts"]["probe"]["data"] = "digits"


def dissect(tree: Tree, folder: Path, names: list[str]) -> None:
    """Let Network Dissection alone look at a data set with these words."""
    texts = np.eye(len(names), dtype=np.float32)
    np.savez(folder / FEATURES, images=texts, texts=texts, words=np.array(names))
    del tree["concepts"]["anchors"]
    tree["concepts"]["detectors"] = {"network-dissection": {}}


def broden(tree: Tree, folder: Path) -> Path:
    """Let Network Dissection look at a folder in Broden's format, and return the folder."""
    dissect(tree, folder, ["red", "car", "water, sea", "wood", "wheel"])
    tree["data"]["probe"] = {"source": "broden", "root": str(folder / "broden")}
    return write_broden(folder / "broden")


def other_size(tree: Tree, folder: Path) -> None:
    save_mask(broden(tree, folder) / "images" / "a" / "1_object.png", np.full((5, 6), 2))


def missing_number(tree: Tree, folder: Path) -> None:
    root = broden(tree, folder)
    text = (root / "label.csv").read_text()
    (root / "label.csv").write_text("\n".join(line for line in text.splitlines() if not line.startswith("2,")))


def no_mask(tree: Tree, folder: Path) -> None:
    (broden(tree, folder) / "images" / "a" / "1_part.png").unlink()


def other_ids(tree: Tree, folder: Path) -> None:
    with np.load(folder / FEATURES) as archive:
        np.savez(folder / FEATURES, **{**archive, "ids": np.arange(COUNT) + 1})
    tree["concepts"]["image_text"]["ids"] = "ids"


def fewer_rows(tree: Tree, folder: Path) -> None:
    with np.load(folder / FEATURES) as archive:
        np.savez(folder / FEATURES, **{**archive, "images": archive["images"][1:]})


def no_archive(tree: Tree, folder: Path) -> None:
    (folder / FEATURES).write_bytes(b"nothing")


def no_clip(tree: Tree, folder: Path) -> None:
    (folder / "clip.pt").write_bytes(b"nothing")
    tree["concepts"]["image_text"] = {"kind": "open-clip", "model": "RN50", "path": str(folder / "clip.pt")}


def odd_layer(tree: Tree, folder: Path) -> None:
    network = {"model": f"{__name__}:Deep", "weights": str(folder / "deep.pt"), "preprocessing": {"mode": "L"}}
    torch.save(Deep().state_dict(), folder / "deep.pt")
    tree["networks"]["small"] = network
    tree["concepts"] |= {"layers": ["deep"], "track": {}}


class Deep(nn.Module):
    """A network with an output of five dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.deep, self.fc = nn.Conv2d(1, 4, 3), nn.Identity(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 2)."""
        logits: Tensor = self.fc(self.deep(self.conv(x)[:, :, None]).mean(dim=(2, 3, 4)))
        return logits


def one_image(tree: Tree, folder: Path) -> None:
    tree["data"]["probe"]["count"] = 1
    tree["concepts"]["detectors"] = {"network-dissection": {}}


FILES: list[tuple[Change, str]] = [
    (words, "concepts.words: features "),
    (tiny_words, "concepts.words: dual encoder: expected words of mini-broden, found 'unheard', 'never seen'; use"),
    (
        no_labels,
        "data.digits: expected a probing set with label maps, found DigitsSource without them; use source mini-",
    ),
    (other_size, "row 1: mask a/1_object.png: expected 4 x 6 pixels, as sh and sw say, found 5 x 6; replace the mask"),
    (missing_number, "c_object.csv, row 1: expected a label number of label.csv, found 2; add it there"),
    (no_mask, "1_part.png does not exist"),
    (other_ids, "expected features of each sample, found none of sample id 0 (1 of 64 samples); compute them for this"),
    (fewer_rows, "expected 64 image rows, one for each sample of the data set, found 63; add an array of sample ids"),
    (no_archive, "concepts.image_text: features "),
    (no_clip, "concepts.image_text"),
    (
        one_image,
        "concepts.probe: expected at least 2 images for `concepts.detectors.network-dissection`, found 1; take more",
    ),
    (odd_layer, "networks.small: layer 'deep': expected maps, tokens or vectors, found an output ('n', 4, 1, 30, 30)"),
]


def test_a_sound_folder_of_broden_is_planned(probed_tree: Tree, write: Write, tmp_path: Path) -> None:
    broden(probed_tree, tmp_path)
    result = layerlore("plan", write(probed_tree))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("command", "change", "expected"), on_commands(FILES, step=4))
def test_bad_files_and_layers_are_one_line(
    probed_tree: Tree, write: Write, tmp_path: Path, command: str, change: Change, expected: str
) -> None:
    change(probed_tree, tmp_path)
    check(layerlore(command, write(probed_tree)), expected, probed_tree["store"])
