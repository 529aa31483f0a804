"""Inputs of a block's projections: tokens as integers, and one line for what does not fit the layer."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.programs import Row, step_row

TOKENS = torch.randint(0, 6, (8, 5), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 2
RATE = 0.1
BATCHES = [[0, 3], [5, 1], [2, 7], [4, 4]]


class Reader(nn.Module):
    """A linear head on the mean of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        found: Tensor = self.head(self.table(tokens).mean(1))
        return found


def program() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], None]]:
    """Return the program of a training in float64."""
    torch.manual_seed(0)
    model = Reader().double()
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def step(row: Row) -> None:
        optimizer.zero_grad()
        picked = torch.as_tensor(np.asarray(row.examples))
        F.cross_entropy(model(TOKENS[picked]), LABELS[picked]).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()

    return model, optimizer, step


@pytest.fixture(scope="module", params=["dense", "replay"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the archive of a training."""
    store, (model, optimizer, step) = tmp_path_factory.mktemp("updates") / "store", program()
    with UpdateRecorder(model, optimizer, store, kind=request.param, program=program) as recorder:
        for number, batch in enumerate(BATCHES):
            with recorder.step(batch) as row:
                step(replace(step_row(number), examples=np.array(batch)))
                row.loss = 0.0
    return str(store)


def parts() -> tuple[Tensor, list[list[Tensor]]]:
    """Return the final table, and minus the rate times each member's gradient in each step."""
    model, _, step = program()
    assert isinstance(model, Reader)
    found: list[list[Tensor]] = []
    for number, batch in enumerate(BATCHES):
        found.append([])
        for member in batch:
            model.zero_grad()
            loss = F.cross_entropy(model(TOKENS[member : member + 1]), LABELS[member : member + 1])
            gradient = torch.autograd.grad(loss / len(batch), model.table.weight)[0]
            found[-1].append(-RATE * gradient)
        step(replace(step_row(number), examples=np.array(batch)))
    return model.table.weight.detach(), found


def contribution(table: Tensor, tokens: Tensor, change: Tensor) -> float:
    """Return gamma of a change of the table for a query, token by token."""
    return sum(float(table[token] @ change[token]) for token in tokens.tolist())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.float64])
def test_tokens_are_integers_or_floats(archive: str, dtype: torch.dtype) -> None:
    table, members = parts()
    source, queries = open_updates(archive, program=program), TOKENS[:3]
    (segment,) = source.segments()
    (block,) = source.blocks(segment, ["table"])
    gamma = block.project(nn.Embedding(6, 4), table, queries.to(dtype)).gamma
    for query, tokens in enumerate(queries):
        for step, one in enumerate(members):
            expected = [contribution(table, tokens, part) for part in one]
            np.testing.assert_allclose(gamma[query, step], sum(expected), rtol=1e-9, atol=1e-12)
            if source.kind == "replay":
                split = block.per_example(nn.Embedding(6, 4), table, queries.to(dtype))[step]
                np.testing.assert_allclose(split[query], expected, rtol=1e-6, atol=1e-9)


BAD = {
    "booleans": (torch.ones(2, 5, dtype=torch.bool), ValueError, "expected floating-point numbers, found torch.bool"),
    "another type": (
        TOKENS[:2].float(),
        ValueError,
        "expected torch.float32 on cpu, as inputs is",
    ),
    "beyond": (TOKENS[:2] + 3, ValueError, "expected tokens 0 to 5 of the vocabulary"),
    "array": (TOKENS[:2].numpy(), TypeError, "inputs: expected a torch tensor, found ndarray"),
}


@pytest.mark.parametrize(("inputs", "kind", "words"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_one_line(archive: str, inputs: Tensor, kind: type[Exception], words: str) -> None:
    source = open_updates(archive, program=program)
    (block,) = source.blocks(source.segments()[0], ["table"])
    calls = [block.project] + ([block.per_example] if source.kind == "replay" else [])
    for call in calls:
        with pytest.raises(kind, match=words):
            call(nn.Embedding(6, 4), source.final("table"), inputs)


def test_values_that_are_not_finite_are_refused_by_example(archive: str) -> None:
    source = open_updates(archive, program=program)
    (block,) = source.blocks(source.segments()[0], ["head"])
    module, weight = nn.Linear(4, 2), source.final("head")
    for call in [block.project] + ([block.per_example] if source.kind == "replay" else []):
        with pytest.raises(ValueError, match="inputs: expected finite values, found NaN or inf in 1 of 2 rows"):
            call(module, weight, torch.tensor([[0.0] * 4, [torch.nan] * 4], dtype=torch.float64))
        with pytest.raises(ValueError, match=r"inputs: expected shape \(Q, ..., 4\), found \(2, 3\)"):
            call(module, weight, torch.ones(2, 3, dtype=torch.float64))
