"""Trainings that start from the weights of other trainings: their order."""

from collections.abc import Mapping

from configs.training import StartNetwork, Training


def trainings_in_order(networks: Mapping[str, Training | None]) -> list[str]:
    """Return the names of the networks with a training, each after the network that it starts from.

    Parameters
    ----------
    networks : the training of each network of a config, None for a network with a file of weights

    Raises
    ------
    ValueError : a start that is not a network with a training, or trainings that start from each other
    """
    ordered: list[str] = []
    for name in networks:
        chain: list[str] = []
        following: str | None = name
        while following is not None and following not in ordered:
            if following in chain:
                loop = " from ".join([*chain[chain.index(following) :], following])
                raise ValueError(
                    f"networks.{following}.train.start.network: expected trainings in an order, found {loop}"
                )
            chain.append(following)
            following = _source(following, networks)
        ordered += [one for one in reversed(chain) if networks[one] is not None]
    return ordered


def _source(name: str, networks: Mapping[str, Training | None]) -> str | None:
    """Return the network whose trained weights the training of a network starts from, if any."""
    train = networks[name]
    if train is None or not isinstance(train.start, StartNetwork):
        return None
    source, key = train.start.network, f"networks.{name}.train.start.network"
    if source not in networks:
        raise ValueError(f"{key}: expected one of {', '.join(networks)}, found {source!r}")
    if networks[source] is None:
        raise ValueError(
            f"{key}: expected a network with `train`, found {source!r} with weights of a file; name the file"
        )
    return source
