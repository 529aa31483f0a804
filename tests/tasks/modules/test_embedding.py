import pytest
import torch
from torch import Tensor, nn

from tasks.modules import MODULES
from tasks.tracing import contributions, gammas, unit_contributions

GENERATOR = torch.Generator().manual_seed(3)
TOKENS = torch.tensor([[0, 4, 4], [2, 2, -1], [5, 1, -1]])


def table(*more: int) -> Tensor:
    """Return random numbers of a table of 6 tokens and 4 features."""
    return torch.randn(*more, 6, 4, generator=GENERATOR, dtype=torch.float64)


def loops(weight: Tensor, updates: Tensor, features: list[int]) -> tuple[Tensor, Tensor]:
    """Return gamma and norm (Q, T), number by number."""
    gamma = torch.zeros(len(TOKENS), len(updates), dtype=torch.float64)
    square = gamma.clone()
    for query, tokens in enumerate(TOKENS.tolist()):
        for step, update in enumerate(updates):
            for token in tokens:
                for feature in features:
                    if token >= 0:
                        gamma[query, step] += weight[token, feature] * update[token, feature]
                        square[query, step] += update[token, feature] ** 2
    return gamma, square.sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_embedding_contributes_the_rows_that_tokens_pick(dtype: torch.dtype) -> None:
    weight, updates = table().to(dtype), table(5).to(dtype)
    found = contributions(nn.Embedding(6, 4), weight, TOKENS.to(dtype), updates)
    gamma, norm = loops(weight.double(), updates.double(), [0, 1, 2, 3])
    torch.testing.assert_close(found.gamma.double(), gamma, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.norm.double(), norm, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gammas(nn.Embedding(6, 4), weight, TOKENS.to(dtype), updates).double(), gamma, rtol=1e-5, atol=1e-5
    )
    picked = torch.tensor([[weight[t].square().sum() if t >= 0 else 0.0 for t in row] for row in TOKENS.tolist()])
    torch.testing.assert_close(found.preactivation_norm.double(), picked.double().sum(1).sqrt())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8])
def test_tokens_are_integers_as_the_layer_takes_them(dtype: torch.dtype) -> None:
    module, weight, updates = nn.Embedding(6, 4), table(), table(5)
    gamma, norm = loops(weight, updates, [0, 1, 2, 3])
    found = contributions(module, weight, TOKENS.to(dtype), updates)
    torch.testing.assert_close(found.gamma, gamma)
    torch.testing.assert_close(found.norm, norm)
    torch.testing.assert_close(gammas(module, weight, TOKENS.to(dtype), updates), gamma)
    one = unit_contributions(module, weight, TOKENS.to(dtype), updates, 2)
    torch.testing.assert_close(one.gamma, loops(weight, updates, [2])[0])
    with pytest.raises(ValueError, match=r"^inputs: expected tokens 0 to 5 of the vocabulary, .* found 6 to 6$"):
        contributions(module, weight, torch.tensor([[6]], dtype=dtype), updates)
    with pytest.raises(ValueError, match=r"^inputs: expected floating-point numbers, found torch\.bool"):
        contributions(module, weight, torch.ones(2, 2, dtype=torch.bool), updates)


def test_units_and_an_anchor() -> None:
    weight, updates, first = table(), table(5), table()
    total = torch.zeros(3, 5, dtype=torch.float64)
    for unit in range(4):
        found = unit_contributions(nn.Embedding(6, 4), weight, TOKENS.double(), updates, unit, anchor=weight - first)
        gamma, norm = loops(weight - first, updates, [unit])
        torch.testing.assert_close(found.gamma, gamma)
        torch.testing.assert_close(found.norm, norm)
        total += found.gamma
    whole = contributions(nn.Embedding(6, 4), weight, TOKENS.double(), updates, anchor=weight - first)
    torch.testing.assert_close(total, whole.gamma)


def test_padding_alone_contributes_nothing() -> None:
    found = contributions(nn.Embedding(6, 4), table(), torch.full((2, 3), -1.0, dtype=torch.float64), table(5))
    assert not found.gamma.any()
    assert not found.norm.any()
    assert not found.preactivation_norm.any()


@pytest.mark.parametrize(
    ("token", "found"), [(6.0, "0 to 6"), (-2.0, "-2 to 0"), (0.5, "fractions")], ids=["beyond", "below", "fraction"]
)
def test_tokens_beyond_the_vocabulary(token: float, found: str) -> None:
    text = f"^inputs: expected tokens 0 to 5 of the vocabulary, or -1 for padding, found {found}$"
    with pytest.raises(ValueError, match=text):
        contributions(nn.Embedding(6, 4), table(), torch.tensor([[0.0, token]], dtype=torch.float64), table(2))


def test_a_type_that_rounds_tokens_is_refused() -> None:
    """In bfloat16, 257 is 256: another row of the table."""
    tokens = torch.tensor([[257]])
    for dtype, size, fits in ((torch.bfloat16, 256, True), (torch.bfloat16, 300, False), (torch.float16, 2049, False)):
        table = nn.Embedding(size, 2).to(dtype)
        if fits:
            assert MODULES[nn.Embedding].inputs(table, (tokens % size,)).tolist() == [[1.0]]
            continue
        with pytest.raises(
            ValueError, match=rf"^expected a vocabulary of at most \d+ tokens in {dtype}, .*{size}; use"
        ):
            MODULES[nn.Embedding].inputs(table, (tokens,))
