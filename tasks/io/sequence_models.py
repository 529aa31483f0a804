"""Networks that read sequences: an LSTM and a small transformer encoder.

A sequence is tokens (n, steps), of which 0 is padding at the end, or features (n, steps, d), or an image (n, C, h, w),
read row by row or, by the transformer, as square patches.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

PADDING = 0  # the token that fills a shorter sequence


class LstmClassifier(nn.Module):
    """An LSTM whose last hidden states a linear head reads.

    Parameters
    ----------
    features : of a step: d, or channels times columns of an image; None for tokens
    vocabulary : number of tokens with padding; None for features
    classes, width, layers : outputs, hidden units of each layer, layers
    bidirectional : whether a second LSTM reads from the end
    """

    def __init__(
        self,
        features: int | None = None,
        vocabulary: int | None = None,
        classes: int = 10,
        width: int = 32,
        layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        _check(features, vocabulary, classes=classes, width=width, layers=layers)
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, width, padding_idx=PADDING)
        seen = width if features is None else features
        self.lstm = nn.LSTM(seen, width, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(width * (1 + bidirectional), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        if self.embedding is None:
            _, (hidden, _) = self.lstm(_rows(x))
        else:
            lengths = _lengths(x)
            steps = pack_padded_sequence(self.embedding(x.long()), lengths, batch_first=True, enforce_sorted=False)
            _, (hidden, _) = self.lstm(steps)
        last = hidden[-2:] if self.lstm.bidirectional else hidden[-1:]
        logits: Tensor = self.head(last.transpose(0, 1).flatten(1))
        return logits


class TransformerClassifier(nn.Module):
    """A transformer encoder, norm first; a linear head reads the mean of its tokens.

    Parameters
    ----------
    features : of a step: d, or channels times columns of an image, or channels times pixels of a patch; None for tokens
    vocabulary : number of tokens with padding; None for features
    length : largest number of steps
    classes, width, layers, heads : outputs, size of a token, layers, heads of each attention
    patch : side of the patches that an image is cut into; None to read it row by row
    """

    def __init__(
        self,
        features: int | None = None,
        vocabulary: int | None = None,
        length: int = 64,
        classes: int = 10,
        width: int = 32,
        layers: int = 2,
        heads: int = 4,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        _check(features, vocabulary, length=length, classes=classes, width=width, layers=layers, heads=heads)
        if width % heads:
            raise ValueError(f"width: expected a multiple of {heads} heads, found {width}")
        self.patch = patch
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.project = None if features is None else nn.Linear(features, width)
        self.positions = nn.Embedding(length + 1, width, padding_idx=PADDING)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        if self.embedding is not None:
            present = torch.arange(x.shape[1], device=x.device) < _lengths(x).to(x.device)[:, None]
            tokens = self.embedding(x.long())
        else:
            assert self.project is not None
            rows = _rows(x) if self.patch is None else _patches(x, self.patch)
            present, tokens = torch.ones(rows.shape[:2], dtype=torch.bool, device=x.device), self.project(rows)
        if tokens.shape[1] >= self.positions.num_embeddings:
            raise ValueError(f"expected up to {self.positions.num_embeddings - 1} steps, found {tokens.shape[1]}")
        tokens = tokens + self.positions(torch.arange(1, tokens.shape[1] + 1, device=x.device) * present)
        for block in self.blocks:
            tokens = block(tokens, present)
        kept = self.norm(tokens) * present[..., None]
        logits: Tensor = self.head(kept.sum(1) / present.sum(1, keepdim=True))
        return logits


class Block(nn.Module):
    """Attention of each token to those that are present, then two linear layers; rows of padding are 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.between, self.wide = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Return the tokens (n, steps, width) after the block."""
        here, mask = present[..., None], None if bool(present.all()) else ~present
        seen = self.before(tokens)
        tokens = tokens + self.attention(seen, seen, seen, key_padding_mask=mask, need_weights=False)[0]
        hidden = nn.functional.gelu(self.wide(self.between(tokens) * here)) * here
        found: Tensor = tokens + self.narrow(hidden)
        return found


def _check(features: int | None, vocabulary: int | None, **counts: int) -> None:
    """Raise ValueError for sizes below 1, and unless there are either features or tokens."""
    if (features is None) == (vocabulary is None):
        raise ValueError(
            "features, vocabulary: expected one of them, found " + ("none" if features is None else "both")
        )
    given = {"features": features, "vocabulary": vocabulary}
    counts |= {name: count for name, count in given.items() if count is not None}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, found {count}")


def _lengths(tokens: Tensor) -> Tensor:
    """Return the number of tokens of each sequence (n,), on the CPU.

    Raises
    ------
    ValueError : a sequence of padding alone, or padding before a token
    """
    here = tokens != PADDING
    lengths = here.sum(1)
    if not bool(lengths.all()):
        raise ValueError(f"expected at least one token in each sequence, found none in {int((lengths == 0).sum())}")
    if bool((here[:, 1:] & ~here[:, :-1]).any()):
        raise ValueError(f"expected padding, token {PADDING}, at the end of a sequence, found it before other tokens")
    return lengths.cpu()


def _rows(x: Tensor) -> Tensor:
    """Return features (n, steps, d): rows of images, or the features themselves."""
    return x.transpose(1, 2).flatten(2) if x.ndim == 4 else x


def _patches(x: Tensor, side: int) -> Tensor:
    """Return the patches of images (n, C, h, w), row by row, (n, patches, C side side)."""
    return nn.functional.unfold(x, side, stride=side).transpose(1, 2)
