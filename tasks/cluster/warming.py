"""Libraries that the workers of a run load as they start, while Prefect's server still starts.

They are loaded before a worker joins: its messages load modules too, in another thread than its partitions, and two
threads that load one library at a time can both fail.
"""

from collections.abc import Sequence

from configs.schema import Config

LIBRARIES = ("pandas", "zarr", "torch")  # what nearly every partition needs
FEW = 2  # workers; of more, most do not train, and each would take 140 MB
TRAINING = ("torch._dynamo",)  # torch loads it with the first optimiser, which takes as long as torch itself
INTERPRETING = ("sklearn.decomposition", "scipy.optimize")  # features of small classes, and their agreement


def libraries_of(config: Config) -> Sequence[str]:
    """Return the modules that the partitions of a run need first."""
    return (*LIBRARIES, *TRAINING) if _trains(config) and config.cluster.workers <= FEW else LIBRARIES


def libraries_ahead(config: Config) -> Sequence[str]:
    """Return the modules that most partitions of a run need, which one process loads for all workers."""
    asked = INTERPRETING if config.interpretation is not None else ()
    return (*LIBRARIES, *(TRAINING if _trains(config) else ()), *asked)


def _trains(config: Config) -> bool:
    """Return whether a run trains a network."""
    return any(network.train is not None for network in config.networks.values())
