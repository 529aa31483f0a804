"""Why a card does not have the part of a question, and the lines of a config that ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.schema import Config
from tasks.steps.cards.choose import Chosen
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.subject import Look

if TYPE_CHECKING:
    from torch import nn

NOTHING = {
    "interpretation": "The full data have no features of these classes: they have no images in the split that question "
    "1 learns from.",
}


def how_to_ask(look: Look, chosen: Chosen, question: str) -> str:
    """Return what to add to the config, or why a question that was asked says nothing of the image."""
    if question in chosen.answers:
        return NOTHING.get(question, "The question says nothing of this image.")
    if question != "tracing" and look.subject.inputs.ndim != 4:
        return "The question is about images, and this network takes something else."
    asked = look.config.asked.get(question)
    if asked is not None:
        names = ", ".join([*asked.networks, chosen.name])
        return f"{question}:\n  networks: [{names}]"
    return _SECTIONS[question](look, chosen)


def _interpretation(look: Look, chosen: Chosen) -> str:
    return (
        f"interpretation:\n  networks: [{chosen.name}]\n  selectors: {{moderate: {{}}}}\n  budgets: [0.1, 1.0]\n"
        "  interpreters: {ice: {components: 6}}"
    )


def _decomposition(look: Look, chosen: Chosen) -> str:
    return f"decomposition:\n  networks: [{chosen.name}]"


def _concepts(look: Look, chosen: Chosen) -> str:
    model = load_network(look.store, chosen.spec, choose_device("auto"))
    name = _probe_name(look.config)
    return (
        f"data:\n  {name}: {{source: mini-broden, count: 600}}   # or your own images with label maps\n"
        f'concepts:\n  networks: [{chosen.name}]\n  layers: ["{last_layer(model)}"]\n'
        f"  probe: {{data: {name}, size: {max(look.subject.inputs.shape[2:])}}}\n  detectors: {{cos_cubed: {{}}}}"
    )


def _tracing(look: Look, chosen: Chosen) -> str:
    network = look.config.networks[chosen.name]
    record = ""
    if network.train is None and network.updates is None:
        record = f"# networks.{chosen.name} needs a training in the run, or `updates` of one elsewhere\n"
    elif network.train is not None and network.train.record is None:
        record = f"networks:\n  {chosen.name}:\n    train:\n      record: {{kind: auto}}\n"
    return f"{record}tracing:\n  networks: [{chosen.name}]\n  counterfactual: {{}}"


def _probe_name(config: Config) -> str:
    """Return a name of a data set that the config does not have."""
    return next(name for name in ("probe", *(f"probe{n}" for n in range(1, 1000))) if name not in config.data)


def last_layer(model: nn.Module) -> str:
    """Return the name of the last activation function that is a module, else of the last module but one."""
    from torch import nn

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children()) and name]
    nonlinear = [name for name, module in leaves if type(module).__module__ == nn.ReLU.__module__]
    names = [name for name, _ in leaves]
    last: str = (nonlinear or names[-2:-1] or names)[-1]
    return last


_SECTIONS = {
    "interpretation": _interpretation,
    "decomposition": _decomposition,
    "concepts": _concepts,
    "tracing": _tracing,
}
