"""Tokens beyond the table of an embedding: an error that names the layer, and the step of a training."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.io.graph_models import graph_network
from tasks.io.sequence_models import LstmClassifier
from tasks.modules.rows import rows_of
from tasks.modules.vocabulary import answers
from tasks.training.batches import Positions
from tasks.training.loop import accuracy
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tests.tasks.training.steps import train_steps

TOKENS = torch.tensor([[1, 2], [3, 0], [2, 7], [1, 1]])
LABELS = torch.tensor([0, 1, 0, 1])


class Reader(nn.Module):
    """Means of two embeddings; the second sees tokens less `shift`."""

    def __init__(self, sizes: tuple[int, int] = (9, 9), shift: int = 0) -> None:
        super().__init__()
        self.first, self.inner = nn.Embedding(sizes[0], 3), nn.ModuleDict({"second": nn.Embedding(sizes[1], 3)})
        self.head, self.shift = nn.Linear(3, 2), shift

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        found: Tensor = self.head((self.first(tokens) + self.inner["second"](tokens - self.shift)).mean(1))
        return found


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Reader((7, 9)), r"^layer 'first': expected tokens 0 to 6 of the vocabulary, found 7$"),
        (Reader((9, 4)), r"^layer 'inner\.second': expected tokens 0 to 3 of the vocabulary, found 7$"),
        (Reader(shift=1), r"^layer 'inner\.second': expected tokens 0 to 8 of the vocabulary, found -1$"),
    ],
)
def test_the_embedding_without_a_token_is_named(model: Reader, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        answers(model, TOKENS)
    assert not model.first._forward_pre_hooks
    torch.testing.assert_close(answers(model, TOKENS[3:]), model(TOKENS[3:]))


def test_an_embedding_with_a_parametrised_table_is_named() -> None:
    model = Reader((7, 9))
    nn.utils.parametrizations.weight_norm(model.first)
    with pytest.raises(ValueError, match=r"^layer 'first': expected tokens 0 to 6 of the vocabulary, found 7$"):
        answers(model, TOKENS)


def test_other_index_errors_stay_what_they_are() -> None:
    class Picks(Reader):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens)[torch.tensor([99])]

    with pytest.raises(IndexError):
        answers(Picks(), TOKENS)


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    """Return the samples at `positions`."""
    return TOKENS[torch.from_numpy(positions)], LABELS[torch.from_numpy(positions)]


def test_a_training_names_the_step() -> None:
    model, batches = Reader((7, 9)), ShuffledBatches(LABELS.numpy(), 0, 1)
    step = next(i for i, batch in enumerate(batches.epoch(0)) if np.array_equal(batch.examples, [2]))
    with pytest.raises(ValueError, match=rf"^step {step}: layer 'first': expected tokens 0 to 6 .*, found 7$"):
        train_steps(model, OPTIMIZERS["sgd"](model.parameters(), lr=0.1), fetch, batches, 0, 4)
    with pytest.raises(ValueError, match=r"^layer 'first': expected tokens 0 to 6"):
        accuracy(model, fetch, 4)


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ([1, 2], "list"),
        (torch.ones(2), r"torch.float32 \(2,\)"),
        (torch.ones(2, dtype=torch.bool), r"torch.bool \(2,\)"),
        (torch.ones(2, 1, dtype=torch.int64), r"torch.int64 \(2, 1\)"),
    ],
)
def test_declared_rows_are_integers(counts: Tensor, found: str) -> None:
    with (
        pytest.raises(ValueError, match=rf"^rows_of: expected a tensor of integers \(n,\), .*, found {found}$"),
        rows_of(counts),
    ):
        pass


def test_declared_rows_are_not_negative() -> None:
    with (
        pytest.raises(ValueError, match=r"^rows_of: expected counts of at least 0, found -3$"),
        rows_of(torch.tensor([5, -3])),
    ):
        pass


def test_sizes_of_networks_are_integers() -> None:
    sizes: tuple[tuple[dict[str, object], str], ...] = (
        ({"layers": "5"}, "layers: .* 1, found '5'"),
        ({"width": 8.5}, "width: .* 1, found 8.5"),
    )
    for more, text in sizes:
        with pytest.raises(ValueError, match=f"^{text}$".replace(".*", "expected an integer of at least")):
            graph_network(**({"nodes": 3, "classes": 2} | more))  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ValueError, match=f"^{text}$".replace(".*", "expected an integer of at least")):
            LstmClassifier(**({"vocabulary": 9} | more))  # type: ignore[arg-type]  # on purpose
