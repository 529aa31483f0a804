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
    trains = any(network.train is not None for network in config.networks.values())
    found = (*LIBRARIES, *TRAINING) if trains and config.cluster.workers <= FEW else LIBRARIES
    return (*found, *INTERPRETING) if config.interpretation is not None else found
