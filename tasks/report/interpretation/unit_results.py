"""What the page shows of VEBI's units: frozen tables and pictures, nothing from a store."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.report.pages import Image


@dataclass(frozen=True)
class UnitImage:
    """A held-out image with the map of a unit on it.

    Attributes
    ----------
    overlay : (H, W, 3) uint8
    sample_id : running number in the data set
    true_class : class name
    response : of the image at the unit, as the config's `response` measures it
    """

    overlay: Image
    sample_id: int
    true_class: str
    response: float


@dataclass(frozen=True)
class CoresetUnit:
    """A unit that coresets find for a class and the full data does not.

    Attributes
    ----------
    class_name : the class
    call, channel : number of the ReLU call and channel of its output, from 0
    elsewhere : whether the full data finds the unit for another class
    weights : by title of a coreset that finds it, such as "random 10 %"
    images : those with the largest responses; none where no held-out image excites the unit
    """

    class_name: str
    call: int
    channel: int
    elsewhere: bool
    weights: Mapping[str, float]
    images: tuple[UnitImage, ...]


@dataclass(frozen=True)
class CoresetUnits:
    """The units of one network that only coresets find: `units`, of `total` pairs of a class and a unit."""

    network: str
    units: tuple[CoresetUnit, ...]
    total: int


@dataclass(frozen=True)
class UnitResults:
    """The units of all coresets of a run.

    Attributes
    ----------
    interpreter : the method's name in a config
    mu : bound of the sum of a class's weights
    sizes : a row per (network, seed, selector, repeat, budget), the full data in place of a selector: units (of a
        class, mean), few (bool: fewer than distances need), never_predicted, n_classes, samples, added (samples summed
        at this budget); fit_seconds, shell_seconds, chain_seconds (of the fit, of the sums at this budget, of all
        sums); means over classes of units_shared, accuracy_plain, accuracy_without, layers_compared, layers_skipped
        (NaN: not compared)
    coverage : a row per (network, selector, budget, call), means over classes and draws: size (units of the call),
        units, units_reference, units_shared
    paths : a row per breakpoint of (network, title, label), first seed: class_name, mu, units (with a weight)
    pictures : units that only coresets find, by network
    """

    interpreter: str
    mu: float
    sizes: pd.DataFrame
    coverage: pd.DataFrame
    paths: pd.DataFrame
    pictures: tuple[CoresetUnits, ...] = ()
