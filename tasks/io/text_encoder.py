"""The sentence encoder all-MiniLM-L6-v2 from its package, read by safetensors and tokenizers alone."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tasks.io.model_files import minilm_folder

WIDTH, HEADS, LAYERS, EPSILON = 384, 12, 6, 1e-12
MAX_TOKENS = 256  # the rest of a longer text is not read, as in the authors' code
BATCH = 64  # texts of one pass


class MiniLM:
    """A text encoder: `encode_texts` gives unit rows of 384 numbers."""

    def __init__(self) -> None:
        folder = str(minilm_folder())
        self._state, self._tokenizer = _weights(folder), _tokenizer(folder)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of texts.

        Parameters
        ----------
        texts : S texts

        Returns
        -------
        (S, 384) float32 unit rows
        """
        rows = [self._encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        found: NDArray[np.float32] = torch.cat(rows).numpy() if rows else np.zeros((0, WIDTH), dtype=np.float32)
        return found

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> Tensor:
        """Return unit rows: the mean of the last layer over the tokens of each text."""
        encoded = self._tokenizer.encode_batch(list(texts))
        tokens = torch.tensor([text.ids for text in encoded])
        mask = torch.tensor([text.attention_mask for text in encoded], dtype=torch.bool)
        hidden = self._embed(tokens)
        for layer in range(LAYERS):
            hidden = self._layer(hidden, mask, f"encoder.layer.{layer}")
        weight = mask[..., None].to(hidden.dtype)
        return F.normalize((hidden * weight).sum(dim=1) / weight.sum(dim=1), dim=1)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Return (n, t, 384) of token numbers (n, t)."""
        table = {
            name: self._state[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        }
        summed = table["word"][tokens] + table["position"][: tokens.shape[1]] + table["token_type"][0]
        return self._norm(summed, "embeddings.LayerNorm")

    def _layer(self, hidden: Tensor, mask: Tensor, name: str) -> Tensor:
        """Return the output of one transformer layer; `mask` (n, t) marks the tokens of a text."""
        n, t, _ = hidden.shape
        query, key, value = (
            self._linear(hidden, f"{name}.attention.self.{part}").view(n, t, HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        mixed = self._linear(mixed.transpose(1, 2).reshape(n, t, WIDTH), f"{name}.attention.output.dense")
        hidden = self._norm(hidden + mixed, f"{name}.attention.output.LayerNorm")
        wide = F.gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        return self._norm(hidden + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        return F.linear(inputs, self._state[f"{name}.weight"], self._state[f"{name}.bias"])

    def _norm(self, inputs: Tensor, name: str) -> Tensor:
        return F.layer_norm(inputs, (WIDTH,), self._state[f"{name}.weight"], self._state[f"{name}.bias"], EPSILON)


@lru_cache(maxsize=1)
def _weights(folder: str) -> dict[str, Tensor]:
    """Return the weights, which a process holds once: 90 MB."""
    state: dict[str, Tensor] = load_file(f"{folder}/model.safetensors")
    return state


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Any:  # Any: the package ships no types
    """Return the tokenizer, which cuts long texts and fills short ones."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return tokenizer
