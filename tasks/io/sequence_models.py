"""Networks that read sequences: an LSTM and a small transformer encoder.

A sequence is tokens (n, steps) or (n, steps, 1), of which 0 is padding at the end, or features (n, steps, d), or
(n, steps, d + 1) with a last number of 1, and 0 at padding. An image (n, C, h, w) is read row by row or, by the
transformer, as square patches.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from tasks.modules.rows import rows_of

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
        self.features, self.vocabulary = features, vocabulary
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, width, padding_idx=PADDING)
        seen = width if features is None else features
        self.lstm = nn.LSTM(seen, width, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(width * (1 + bidirectional), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        present, lengths = _present(x, self.features, self.vocabulary)
        steps = _steps(x, self.features) if self.embedding is None else self.embedding(_tokens(x))
        if present is None:
            _, (hidden, _) = self.lstm(steps)
        else:
            packed = pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
            _, (hidden, _) = self.lstm(packed)
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
        self.patch, self.features, self.vocabulary = patch, features, vocabulary
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.project = None if features is None else nn.Linear(features, width)
        self.positions = nn.Embedding(length + 1, width, padding_idx=PADDING)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        if x.ndim == 4 and self.patch is not None:
            x = _patches(x, self.patch)
        present, _ = _present(x, self.features, self.vocabulary)
        if self.embedding is not None:
            tokens = self.embedding(_tokens(x))
        else:
            assert self.project is not None
            tokens = _by_rows(self.project, _steps(x, self.features), present)
        places = torch.arange(1, tokens.shape[1] + 1, device=x.device).expand(tokens.shape[:2])
        if tokens.shape[1] >= self.positions.num_embeddings:
            raise ValueError(f"expected up to {self.positions.num_embeddings - 1} steps, found {tokens.shape[1]}")
        tokens = tokens + self.positions(places if present is None else places * present)
        for block in self.blocks:
            tokens = block(tokens, present)
        kept = self.norm(tokens)
        mean = kept.mean(1) if present is None else (kept * present[..., None]).sum(1) / present.sum(1, keepdim=True)
        logits: Tensor = self.head(mean)
        return logits


class Block(nn.Module):
    """Attention of each token to those that are present, then two linear layers, which do not see padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.between, self.wide = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        """Return the tokens (n, steps, width) after the block."""
        mask = None if present is None else ~present
        seen = self.before(tokens)
        tokens = tokens + self.attention(seen, seen, seen, key_padding_mask=mask, need_weights=False)[0]
        return tokens + _by_rows(self._mixed, self.between(tokens), present)

    def _mixed(self, rows: Tensor) -> Tensor:
        """Return what the two linear layers make of rows."""
        found: Tensor = self.narrow(nn.functional.gelu(self.wide(rows)))
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
        if type(count) is not int or count < 1:
            raise ValueError(
                f"{name}: expected {'an integer of ' * (type(count) is not int)}at least 1, found {count!r}"
            )


def _present(x: Tensor, features: int | None, vocabulary: int | None) -> tuple[Tensor | None, Tensor]:
    """Return which steps are there (n, steps), and the number of each sequence's (n,), on the CPU.

    None where the input does not say it, and all are.

    Raises
    ------
    ValueError : features for tokens, tokens for features, or another size; padding alone, padding before a
        step, or a token beyond the vocabulary
    """
    _check_content(x, features)
    if features is not None:
        if x.ndim != 3 or x.shape[-1] != features + 1:
            return None, torch.zeros(0)
        here = x[..., -1] > 0
    else:
        here, most = _tokens(x) != PADDING, int(x.max()) if x.numel() else 0
        if vocabulary is not None and most >= vocabulary:
            raise ValueError(f"expected tokens below {vocabulary}, the vocabulary, found {most}")
    lengths = here.sum(1)
    if not bool(lengths.all()):
        raise ValueError(f"expected at least one step in each sequence, found none in {int((lengths == 0).sum())}")
    if bool((here[:, 1:] & ~here[:, :-1]).any()):
        raise ValueError("expected padding at the end of a sequence, found it before other steps")
    return here, lengths.cpu()


def _check_content(x: Tensor, features: int | None) -> None:
    """Raise ValueError for features where tokens are read, for tokens where features are, and for another size."""
    tokens, size = x.ndim == 2 or (x.ndim == 3 and x.shape[-1] == 1), _rows(x).shape[-1]
    if features is None and not tokens:
        d = size if x.ndim == 4 else size - 1
        raise ValueError(
            f"expected tokens, found features of size {d}; set `arguments: {{features: {d}}}` in place of vocabulary"
        )
    if features is not None and size not in ((features,) if x.ndim == 4 else (features, features + 1)):
        more = "" if x.ndim == 4 else f", or {features + 1} with one that is 0 at padding"
        found = "tokens" if tokens else f"{size}"
        raise ValueError(f"expected steps of {features} features, as its arguments state{more}, found {found}")


def _by_rows(apply: Callable[[Tensor], Tensor], values: Tensor, present: Tensor | None) -> Tensor:
    """Apply linear layers to the steps that are there, one after the other; padding becomes 0."""
    if present is None:
        return apply(values)
    with rows_of(present.sum(1)):
        made = apply(values[present])
    found = made.new_zeros(*present.shape, made.shape[1])
    found[present] = made
    return found


def _tokens(x: Tensor) -> Tensor:
    """Return tokens (n, steps) as integers."""
    return (x[..., 0] if x.ndim == 3 else x).long()


def _steps(x: Tensor, features: int | None) -> Tensor:
    """Return features (n, steps, d), without the number that says which steps are there."""
    rows = _rows(x)
    return rows[..., :-1] if x.ndim == 3 and features is not None and rows.shape[-1] == features + 1 else rows


def _rows(x: Tensor) -> Tensor:
    """Return rows of images as features (n, steps, d); features as they are."""
    return x.transpose(1, 2).flatten(2) if x.ndim == 4 else x


def _patches(x: Tensor, side: int) -> Tensor:
    """Return the patches of images (n, C, h, w), row by row, (n, patches, C side side)."""
    return nn.functional.unfold(x, side, stride=side).transpose(1, 2)


def check_sequences(model: nn.Module, samples: Tensor) -> None:
    """Raise ValueError for samples of a data set that are graphs (n, K), where the model reads sequences."""
    if samples.ndim == 2 and isinstance(model, LstmClassifier | TransformerClassifier):
        raise ValueError(
            "expected sequences (n, steps, numbers) or images for this model, found graphs as vectors "
            f"{tuple(samples.shape)}; use graph-network"
        )
