"""The ways in which the networks of question 3 are trained, and what each is compared with."""

from collections.abc import Mapping

from configs.schema import Config, Network

OWN = ("fine-tuning", "lottery")  # compared with their own first snapshot


def paradigms_of(config: Config) -> Mapping[str, tuple[str, str]]:
    """Return kind and reference of each network's training, by its name; a network without a known one is left out.

    `concepts.paradigms` names it, else the settings of the training do. The reference is the first network with a
    standard training: of the same data where there is one. It is "" where a network is compared with its own beginning.
    """
    asked = config.concepts
    assert asked is not None
    kinds = {name: asked.paradigms.get(name) or _kind(config.networks[name]) for name in asked.networks}
    standard = [name for name, kind in kinds.items() if kind == "standard"]
    found = {}
    for name, kind in kinds.items():
        if kind in OWN:
            found[name] = (kind, "")
        elif kind is not None and (others := [other for other in standard if other != name]):
            same = [other for other in others if _data(config.networks[other]) == _data(config.networks[name])]
            found[name] = (kind, (same or others)[0])
    return found


def _kind(network: Network) -> str | None:
    """Return what the settings of a network's training say; None for given weights."""
    train = network.train
    if train is None:
        return None
    signs = {
        "adversarial": train.adversary,
        "lottery": train.lottery,
        "diversity": train.diversity,
        "fine-tuning": train.start,
    }
    return next((kind for kind, setting in signs.items() if setting is not None), "standard")


def _data(network: Network) -> str | None:
    """Return the data set that a network is trained on."""
    return None if network.train is None else network.train.data
