"""What a layer is, in a few words: its class and its sizes, such as "Linear 32 → 10"."""

from collections.abc import Iterable

from torch import nn

from tasks.modules.naming import find_map, split_call

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


def describe(module: nn.Module) -> str:
    """Return class and sizes of a module; the class alone where it has no sizes of its own."""
    kind, sizes = type(module).__name__, _sizes(module)
    return f"{kind} {sizes}" if sizes else kind


def layer_descriptions(model: nn.Module, layers: Iterable[str], n_outputs: int) -> dict[str, str]:
    """Return what each layer is, by its name; names that the network does not have are left out.

    Parameters
    ----------
    layers : names of modules or of traced layers; `name:3` is a unit, `name@1` a call
    n_outputs : of the network, 0 unknown. The last module of that many outputs is called the output
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    sized = [name for name, module in modules.items() if n_outputs and _outputs(module) == n_outputs]
    found = {}
    for layer in layers:
        whole, colon, unit = layer.rpartition(":")
        name, call = split_call(whole if colon and unit.isdecimal() else layer)
        text = _of_map(model, name) or (describe(modules[name]) if name in modules and name else "")
        if not text:
            continue
        extra = [f"unit {unit}"] if colon and unit.isdecimal() else []
        extra += [] if call is None else [f"call {call + 1}"]
        extra += ["output"] if sized and name == sized[-1] else []
        found[layer] = ", ".join([text, *extra])
    return found


def _of_map(model: nn.Module, name: str) -> str:
    """Describe a map of a module that holds several, "" where the name is not one."""
    found = find_map(model, name)
    return "" if found is None else f"{found.name} of {describe(found.module)}"


def _sizes(module: nn.Module) -> str:
    """Return the sizes of a module in words, "" without any."""
    if isinstance(module, nn.Linear):
        return f"{module.in_features} → {module.out_features}"
    if isinstance(module, nn.modules.conv._ConvNd):
        window = " x ".join(map(str, module.kernel_size))
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{module.in_channels} → {module.out_channels}, {window}{groups}"
    if isinstance(module, nn.Embedding):
        return f"{module.num_embeddings:,} → {module.embedding_dim}"
    if isinstance(module, nn.MultiheadAttention):
        return f"{module.embed_dim}, {module.num_heads} head{'' if module.num_heads == 1 else 's'}"
    if isinstance(module, RECURRENT):
        return f"{module.input_size} → {module.hidden_size}"
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return str(module.num_features)
    return " x ".join(map(str, module.normalized_shape)) if isinstance(module, nn.LayerNorm) else ""


def _outputs(module: nn.Module) -> int:
    """Return the number of outputs of a linear layer or a convolution, 0 for others."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.modules.conv._ConvNd) else 0
