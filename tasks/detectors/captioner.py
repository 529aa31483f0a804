"""The captioner of MILAN: an LSTM that attends over the regions of a neuron, and a language model of captions.

Tensors have the names of the authors' published files (Hernandez et al. 2022), without those of their encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

SPECIALS = ("<start>", "<stop>", "<pad>", "<unk>")  # the last tokens of a vocabulary, in this order
MEAN, DEVIATION = "feature_mean", "feature_deviation"  # of a captioner trained here; a published file has neither
OF_ENCODER = "encoder."  # tensors of the authors' encoder: networks of the config take its place


@dataclass(frozen=True)
class Sizes:
    """Numbers of units of a captioner; `features` and `tokens` come from the data."""

    features: int
    tokens: int
    embedding: int = 128
    hidden: int = 512
    attention: int = 512
    lm_embedding: int = 128
    lm_hidden: int = 512
    lm_layers: int = 2


class State(NamedTuple):
    """The state of the decoder for R rows: hidden and cell state, (R, hidden)."""

    hidden: Tensor
    cell: Tensor


class Attention(nn.Module):
    """Additive attention of a hidden state over regions (Xu et al. 2015)."""

    def __init__(self, query: int, key: int, hidden: int) -> None:
        super().__init__()
        self.query_to_hidden = nn.Linear(query, hidden)
        self.key_to_hidden = nn.Linear(key, hidden)
        self.output = nn.Sequential(nn.Linear(hidden, 1))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return weights (R, n) of n regions, from states (R, hidden) and keys (R, n, attention)."""
        scores: Tensor = self.output(torch.tanh(self.query_to_hidden(query)[:, None] + keys))[..., 0]
        return scores.softmax(dim=1)


class LanguageModel(nn.Module):
    """An LSTM that gives the probability of a caption without an image."""

    def __init__(self, sizes: Sizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.tokens, sizes.lm_embedding)
        between = dropout if sizes.lm_layers > 1 else 0.0
        self.lstm = nn.LSTM(sizes.lm_embedding, sizes.lm_hidden, sizes.lm_layers, dropout=between, batch_first=True)
        self.output = nn.Sequential(nn.Linear(sizes.lm_hidden, sizes.tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return log probabilities (n, length, tokens) of the token after each of `tokens` (n, length)."""
        hidden, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.output(hidden)
        return logits.log_softmax(dim=-1)


class Captioner(nn.Module):
    """Decoder and language model; a neuron is the features of its regions, (n, features).

    Parameters
    ----------
    sizes : numbers of units
    dropout : share of units that training switches off before the output, and between the layers of the language model
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(self, sizes: Sizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer(MEAN, torch.zeros(sizes.features))
        self.register_buffer(DEVIATION, torch.ones(sizes.features))
        self.init_h = nn.Sequential(nn.Linear(sizes.features, sizes.hidden), nn.Tanh())
        self.init_c = nn.Sequential(nn.Linear(sizes.features, sizes.hidden), nn.Tanh())
        self.embedding = nn.Embedding(sizes.tokens, sizes.embedding)
        self.attend = Attention(sizes.hidden, sizes.features, sizes.attention)
        self.feature_gate = nn.Sequential(nn.Linear(sizes.hidden, sizes.features), nn.Sigmoid())
        self.lstm = nn.LSTMCell(sizes.embedding + sizes.features, sizes.hidden)
        self.output = nn.Sequential(nn.Dropout(dropout), nn.Linear(sizes.hidden, sizes.tokens))
        self.lm = LanguageModel(sizes, dropout)

    @property
    def start(self) -> int:
        """The token before a caption; the special tokens follow it."""
        return self.sizes.tokens - len(SPECIALS)

    def prepare(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled features (R, n, features) and the attention's keys (R, n, attention)."""
        scaled = (features - self.feature_mean) / self.feature_deviation
        return scaled, self.attend.key_to_hidden(scaled)

    def begin(self, scaled: Tensor) -> State:
        """Return the first state of the decoder, from scaled features (R, n, features)."""
        pooled = scaled.mean(dim=1)
        return State(self.init_h(pooled), self.init_c(pooled))

    def step(self, scaled: Tensor, keys: Tensor, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return log probabilities (R, tokens) of the next token, attention (R, n), and the next state.

        Parameters
        ----------
        scaled, keys : of `prepare`
        tokens : (R,) int64, the last token of each row
        state : before it
        """
        weights = self.attend(state.hidden, keys)
        attended = (weights[..., None] * scaled).sum(dim=1) * self.feature_gate(state.hidden)
        hidden, cell = self.lstm(torch.cat([self.embedding(tokens), attended], dim=-1), tuple(state))
        logits: Tensor = self.output(hidden)
        return logits.log_softmax(dim=-1), weights, State(hidden, cell)

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return log probabilities (R, length, tokens) after each token, and attention (R, length, n).

        `features` is (R, n, features), `tokens` (R, length).
        """
        scaled, keys = self.prepare(features)
        state, found, seen = self.begin(scaled), [], []
        for position in range(tokens.shape[1]):
            log_p, weights, state = self.step(scaled, keys, tokens[:, position], state)
            found.append(log_p)
            seen.append(weights)
        return torch.stack(found, dim=1), torch.stack(seen, dim=1)


def caption_log_p(log_p: Tensor, tokens: Tensor, stop: int) -> Tensor:
    """Return the log probability (R,) of captions: the sum up to and with their first stop.

    Parameters
    ----------
    log_p : (R, length, tokens), of the token at each position
    tokens : (R, length) int64
    stop : the token that ends a caption
    """
    chosen = log_p.gather(2, tokens[..., None])[..., 0]
    stops = (tokens == stop).long()
    before = stops.cumsum(dim=1) - stops  # stops before each position
    return torch.where(before == 0, chosen, 0.0).sum(dim=1)


def captioner_of(tensors: Mapping[str, Tensor]) -> Captioner:
    """Return the captioner of a file's tensors, in evaluation mode; sizes follow from their shapes.

    Tensors of the authors' encoder are left out.

    Raises
    ------
    ValueError : a missing, an unexpected or a misshapen tensor, or one that is not finite; one line
    """
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(OF_ENCODER)}
    model = Captioner(_sizes(given))
    expected = model.state_dict()
    scale = {name: expected[name] for name in (MEAN, DEVIATION) if name not in given}
    found = {**given, **scale}
    if problem := _misfit(expected, found):
        raise ValueError(f"captioner: {problem}; give a file of MILAN's decoder with its language model")
    model.load_state_dict(found)
    return model.eval()


def _sizes(given: Mapping[str, Tensor]) -> Sizes:
    """Return the sizes that the shapes of tensors say; absent or odd ones are found later, by comparison."""

    def side(name: str, axis: int) -> int:
        shape = given[name].shape if name in given else ()
        return max(1, int(shape[axis])) if len(shape) > axis else 1

    layers = sum(name.startswith("lm.lstm.weight_ih_l") for name in given)
    return Sizes(
        features=side("init_h.0.weight", 1),
        tokens=max(len(SPECIALS) + 1, side("embedding.weight", 0)),
        embedding=side("embedding.weight", 1),
        hidden=side("init_h.0.weight", 0),
        attention=side("attend.key_to_hidden.weight", 0),
        lm_embedding=side("lm.embedding.weight", 1),
        lm_hidden=side("lm.output.0.weight", 1),
        lm_layers=max(1, layers),
    )


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return in words the first difference between tensors, "" for none."""
    if missing := [name for name in expected if name not in found]:
        return f"expected {len(expected)} tensors, found {len(missing)} of them missing (first {missing[0]})"
    if more := [name for name in found if name not in expected]:
        return f"expected no tensor besides the {len(expected)} known, found {more[0][:60]!r}"
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            return f"expected {name} {tuple(tensor.shape)}, found {tuple(found[name].shape)}"
        if not bool(found[name].isfinite().all()):
            return f"expected finite numbers, found NaN or infinity in {name}"
    return ""
