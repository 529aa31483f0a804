"""Networks of sequences that cannot be traced: one line, code 2, and nothing is written."""

from pathlib import Path

import pytest
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from flows import cli, exits
from tests.conftest import Tree
from tests.flows.command import said_by


class Reader(nn.Module):
    """Reads the rows of a digit; `keeps` its hidden state for the next call."""

    def __init__(self, keeps: bool = False, dropout: float = 0.0, returned: bool = True) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 10)
        self.attend = nn.MultiheadAttention(6, 2, dropout=dropout, batch_first=True)
        self.keeps, self.returned = keeps, returned
        self.kept: tuple[Tensor, Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        start = self.kept if self.kept is not None and self.kept[0].shape[1] == len(images) else None
        steps, state = self.lstm(images[:, 0], start)
        if self.keeps:
            self.kept = state[0].detach(), state[1].detach()
        steps = self.attend(steps, steps, steps, need_weights=self.returned)[0]
        found: Tensor = self.head(steps[:, -1])
        return found


def changed(tree: Tree, path: Path, **arguments: object) -> Path:
    """Write the traced config with a reader as its network."""
    network = {"model": f"{__name__}:Reader", "arguments": arguments}
    tree["networks"]["small"] |= network
    tree["networks"]["small"]["train"]["batches"] = {"kind": "shuffled", "size": 8}
    file = path / "run.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def planned(file: Path) -> tuple[int, str]:
    """Return the exit code of a plan and what it said."""
    result = CliRunner().invoke(cli.app, ["plan", str(file)])
    return result.exit_code, "\n".join(said_by(result))


class Lookup(nn.Module):
    """Reads the numbers of an image as tokens."""

    def __init__(self, vocabulary: int = 4) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, 6), nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        found: Tensor = self.head(self.embedding((images * 16).long().clamp(0)).flatten(1, -2).mean(1))
        return found


def test_tokens_beyond_the_vocabulary_of_a_network(traced_tree: Tree, tmp_path: Path) -> None:
    file = changed(traced_tree, tmp_path, vocabulary=4)
    tree = yaml.safe_load(file.read_text())
    tree["networks"]["small"]["model"] = f"{__name__}:Lookup"
    file.write_text(yaml.safe_dump(tree))
    code, said = planned(file)
    assert code == exits.BAD_CONFIG
    assert said.startswith("error: networks.small: layer 'embedding': expected tokens 0 to 3 of the vocabulary, found")
    assert not (tmp_path / "store").exists()


KEPT = (
    "layer 'lstm': expected the same state before the first step in each call of the network, found one that is kept "
    "between calls; begin each call with zeros, or with a state made from its input"
)


def test_a_state_that_is_kept_between_calls(traced_tree: Tree, tmp_path: Path) -> None:
    code, said = planned(changed(traced_tree, tmp_path, keeps=True))
    assert code == exits.BAD_CONFIG
    assert said.startswith("error: ")
    assert said.strip().endswith(KEPT)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("returned", [True, False])
def test_attention_with_dropout_is_planned(traced_tree: Tree, tmp_path: Path, returned: bool) -> None:
    """Queries are explained in evaluation mode, where nothing is dropped."""
    assert planned(changed(traced_tree, tmp_path, dropout=0.2, returned=returned))[0] == 0


KNOWN = "lstm.l0, head, attend.q_proj, attend.k_proj, attend.v_proj, attend.out_proj"


@pytest.mark.parametrize("layer", ["lstm.l1", "attend.q_proj.2", "lstm.ih_l0", "lstm", "attend.in_proj", "rnn.l0"])
def test_maps_that_do_not_exist(traced_tree: Tree, tmp_path: Path, layer: str) -> None:
    traced_tree["tracing"]["layers"] = [layer]
    code, said = planned(changed(traced_tree, tmp_path))
    assert code == exits.BAD_CONFIG
    assert f"tracing.layers: expected recorded layers ({KNOWN}), found {layer!r}" in said


def test_calls_and_units_that_do_not_exist(traced_tree: Tree, tmp_path: Path) -> None:
    traced_tree["tracing"]["layers"] = ["head@1"]
    code, said = planned(changed(traced_tree, tmp_path))
    assert code == exits.BAD_CONFIG
    assert "layer 'head@1': expected a call of 0 to 0, found 1" in said
    traced_tree["tracing"] |= {"layers": ["lstm.l0", "attend.out_proj.1"], "units": ["lstm.l0:23", "attend.v_proj.1:2"]}
    assert planned(changed(traced_tree, tmp_path))[0] == 0
    traced_tree["tracing"]["units"] = ["lstm.l0:24"]
    code, said = planned(changed(traced_tree, tmp_path))
    assert code == exits.BAD_CONFIG
    assert "tracing.units: expected lstm.l0:0 to lstm.l0:23, found 'lstm.l0:24'" in said
