"""Find a network's head: the last linear layer that is executed, if its output is the network's."""

from dataclasses import dataclass

from torch import Tensor, nn

from tasks.capture import find_output_layer
from tasks.splitting.replay import watching

SHOWN = 3  # largest number of modules in a message


@dataclass(frozen=True)
class Head:
    """A network's final layer; its input is the cut of `split_at(model, "penultimate", example)`.

    Attributes
    ----------
    name : of the module within the network
    module : the layer, d features in, C logits out
    """

    name: str
    module: nn.Linear


def find_head(model: nn.Module, example: Tensor) -> Head:
    """Find the last nn.Linear that a network executes; its output must be the network's.

    Parameters
    ----------
    model : in evaluation mode; not changed
    example : (n, C, H, W), images like those of later calls in size and kind, on the model's device

    Returns
    -------
    Head

    Raises
    ------
    ValueError : the network is in training mode; it does not end in a linear layer; or it calls the layer more than
        once. The message names the modules that the network ends in.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("model: expected evaluation mode, found training mode; call model.eval() first")
    called: list[str] = []
    with watching(model, lambda name, module, output: called.append(name)):
        model(example.clone())
    linear = [name for name in called if isinstance(model.get_submodule(name), nn.Linear)]
    name = find_output_layer(model, example)
    if name is None or name != linear[-1]:
        raise ValueError(_refusal(model, called, linear))
    if linear.count(name) > 1:
        raise ValueError(
            f"head {name!r}: expected one call of the layer, found {linear.count(name)}; a decomposed layer in its "
            "place would change the other calls"
        )
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return Head(name, module)


def replace_head(model: nn.Module, name: str, head: nn.Module) -> None:
    """Replace a module of a network, in place.

    Parameters
    ----------
    model : changed; copy it first where the full model is still needed
    name : name of a module in it, such as `Head.name`
    head : the new module
    """
    if name not in dict(model.named_modules()) or not name:
        raise ValueError(f"head {name!r}: expected the name of a module of the network, found none")
    model.set_submodule(name, head)


def _refusal(model: nn.Module, called: list[str], linear: list[str]) -> str:
    """Return a message why a network does not have a head."""
    leaves = [name for name in called if not list(model.get_submodule(name).children())]
    last = ", ".join(f"{name} ({type(model.get_submodule(name)).__name__})" for name in leaves[-SHOWN:])
    found = f"its last one, {linear[-1]}, does not give it" if linear else "it calls none"
    return (
        f"expected a network whose output is that of an nn.Linear, found that {found}; the network ends in "
        f"{last or 'its own forward'}: only logits W x + b can be decomposed class by class"
    )
