"""Attention as linear maps: queries, keys and values, with each head's rows, and the output with each head's columns.

A hook on `out_proj` never fires, so the output map's inputs are computed: the attention with the identity as output.
Rows of padded tokens are 0: a mask keeps their keys and values out of every answer.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tasks.modules.composed import LinearMap, PaddedLinear, Piece, SliceMap
from tasks.modules.rows import Inputs

ORDER = ("q_proj", "k_proj", "v_proj")
ARGUMENTS = ("query", "key", "value", "key_padding_mask")  # by position


class AttentionMap(PaddedLinear):
    """A map of an attention; reports name its class."""


class Attention:
    """`nn.MultiheadAttention`, with one weight for queries, keys and values, or one for each."""

    forward = ("forward",)

    def problem(self, module: nn.Module) -> str:
        """Return what keeps an attention from being covered."""
        assert isinstance(module, nn.MultiheadAttention)
        return "add_bias_kv, which adds a key and a value of its own" if module.bias_k is not None else ""

    def pieces(self, module: nn.Module) -> dict[str, Piece]:
        """Return the weights; separate ones share a bias."""
        assert isinstance(module, nn.MultiheadAttention)
        bias = None if module.in_proj_bias is None else "in_proj_bias"
        if module._qkv_same_embed_dim:
            found = {"in_proj": Piece("in_proj_weight", bias)}
        else:
            found = {name: Piece(f"{name}_weight", bias) for name in ORDER}
        return found | {"out_proj": Piece("out_proj.weight", None if module.out_proj.bias is None else "out_proj.bias")}

    def maps(self, module: nn.Module) -> dict[str, LinearMap]:
        """Return the four maps, and behind each of them those of the heads."""
        assert isinstance(module, nn.MultiheadAttention)
        size, width = module.embed_dim, module.head_dim
        heads = [(head * width, (head + 1) * width) for head in range(module.num_heads)]
        found: dict[str, LinearMap] = {}
        for place, name in enumerate(ORDER):
            fused = module._qkv_same_embed_dim
            piece, first = ("in_proj", place * size) if fused else (name, 0)
            columns = (0, (size, size if fused else module.kdim, size if fused else module.vdim)[place])
            for label, (low, high), part in [("", (0, size), False), *_labelled(heads)]:
                biased = (place * size + low, place * size + high)
                found[name + label] = SliceMap(piece, (first + low, first + high), columns, biased, part)
        found["out_proj"] = SliceMap("out_proj", (0, size), (0, size), (0, size))
        for label, columns, _ in _labelled(heads):
            found[f"out_proj{label}"] = SliceMap("out_proj", (0, size), columns, None, part=True)
        return found

    def stand_in(self, size: tuple[int, int]) -> nn.Module:
        """Return a linear map that knows padding."""
        return AttentionMap(size[1], size[0], device="meta")

    def inputs(self, module: nn.Module, given: tuple[object, ...], named: Mapping[str, object]) -> dict[str, Inputs]:
        """Return the tokens of queries, keys and values, and what the heads make of them, (Q, L, in + 1)."""
        assert isinstance(module, nn.MultiheadAttention)
        taken = dict(zip(ARGUMENTS, given, strict=False)) | dict(named)
        _check_call(module, taken)
        tokens = [taken.get(name) for name in ARGUMENTS[:3]]
        kept = [_present(module, one) for one in tokens]
        padding = _padding(taken.get("key_padding_mask"))
        if padding is not None:
            padded = [tokens[0] is tokens[1], True, True]  # queries are padded where they are the keys themselves
            kept = [~padding if here else one for one, here in zip(kept, padded, strict=True)]
        found: dict[str, Inputs] = {}
        for name, token, present in zip(ORDER, tokens, kept, strict=True):
            assert isinstance(token, Tensor)
            found[name] = _marked(token if module.batch_first else token.transpose(0, 1), present)
        made = _contexts(module, given, named)
        seen = _marked(made if module.batch_first else made.transpose(0, 1), kept[0])
        for head in range(module.num_heads):
            found |= {f"{name}.{head}": found[name] for name in ORDER}
            found[f"out_proj.{head}"] = _of_head(seen, head, module)
        return found | {"out_proj": seen}


def _labelled(heads: list[tuple[int, int]]) -> list[tuple[str, tuple[int, int], bool]]:
    """Return label, range and whether it is a part, of each head."""
    return [(f".{number}", span, True) for number, span in enumerate(heads)]


def _check_call(module: nn.MultiheadAttention, taken: Mapping[str, object]) -> None:
    """Raise ValueError for calls that cannot be traced."""
    if any(not isinstance(taken.get(name), Tensor) for name in ARGUMENTS[:3]):
        raise ValueError("expected tensors as query, key and value, found other arguments")
    query = taken["query"]
    assert isinstance(query, Tensor)
    if query.ndim != 3 or query.is_nested:
        raise ValueError(f"expected a batch of queries with 3 axes, found {query.ndim} axes")
    if module.training and module.dropout > 0:
        raise ValueError(
            f"expected evaluation mode with dropout {module.dropout:g}, found training mode, in which each call drops "
            "other weights; call eval() first"
        )


def _present(module: nn.MultiheadAttention, token: object) -> Tensor:
    """Return (Q, L) True for every token."""
    assert isinstance(token, Tensor)
    first = token if module.batch_first else token.transpose(0, 1)
    return torch.ones(first.shape[:2], dtype=torch.bool, device=token.device)


def _padding(mask: object) -> Tensor | None:
    """Return where keys are padding, (Q, S): a mask of booleans is True there, one of numbers is -inf."""
    if not isinstance(mask, Tensor):
        return None
    return mask if mask.dtype == torch.bool else mask == -torch.inf


def _marked(rows: Tensor, present: Tensor) -> Tensor:
    """Return rows (Q, L, n + 1): 0 at padding, with a last column of 1 for others."""
    ones = present[..., None].to(rows.dtype)
    return torch.cat([torch.where(present[..., None], rows, 0.0), ones], dim=2)


def _contexts(module: nn.MultiheadAttention, given: tuple[object, ...], named: Mapping[str, object]) -> Tensor:
    """Return what the output map sees, in the layout of the call's answer."""
    twin = copy.copy(module)
    size, weight = module.embed_dim, module.out_proj.weight
    with torch.device("meta"):
        plain = nn.modules.linear.NonDynamicallyQuantizableLinear(size, size, bias=False)
    plain.weight = nn.Parameter(torch.eye(size, dtype=weight.dtype, device=weight.device), requires_grad=False)
    twin._modules = {"out_proj": plain}
    twin._forward_pre_hooks, twin._forward_pre_hooks_with_kwargs = type(module._forward_pre_hooks)(), {}
    twin._forward_hooks = type(module._forward_hooks)()
    found: Tensor = nn.MultiheadAttention.forward(twin, *given, **named)[0]  # type: ignore[arg-type]  # as they were given
    return found


def _of_head(rows: Tensor, head: int, module: nn.MultiheadAttention) -> Tensor:
    """Return the columns of a head, with the last one."""
    width = module.head_dim
    return torch.cat([rows[..., head * width : (head + 1) * width], rows[..., -1:]], dim=-1)
