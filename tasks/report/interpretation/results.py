"""The results that the page of the interpretation question shows: frozen tables and images, nothing from a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from tasks.report.interpretation.card_results import CardResults
from tasks.report.interpretation.unit_results import UnitResults
from tasks.report.pages import Image


@dataclass(frozen=True)
class GalleryRow:
    """One validation image and its heat maps.

    Attributes
    ----------
    image : (H, W, 3) uint8
    sample_id : running number in the data set
    true_class, predicted : class names
    overlays : (H, W, 3) uint8 by column title, such as "full data" or "moderate 10 %"; a title may be missing
    """

    image: Image
    sample_id: int
    true_class: str
    predicted: str
    overlays: Mapping[str, Image]


@dataclass(frozen=True)
class Gallery:
    """Heat maps of one network; validation images only, so that no training image is in the report.

    Attributes
    ----------
    title : heading, plain text
    rows : one per image
    """

    title: str
    rows: tuple[GalleryRow, ...]


@dataclass(frozen=True)
class InterpretationResults:
    """Results of the question "which features are relevant, and how little data shows them?".

    Attributes
    ----------
    networks : columns network (str), seed (int), model, layer, layer_title (str; what it is, for people), top1, top5
        (float, 0..1), n_val, n_train (int), n_outputs (of the network), n_classes (with images), chance (share of the
        most frequent one);
        map_shape (anything printable, such as "8 x 8 x 64")
    classes : the long table, a row per (network, seed, interpreter, selector, repeat, budget, label); here and in the
        next three, `coreset_from` is the network that selected, which the selector's name has too if it is another one
    by_budget : means over classes, a row per (network, seed, interpreter, selector, repeat, budget); costs as
        {part}_seconds and {part}_peak_mb of the parts selection, features, evaluation; with units also
        accuracy_without (0..1), units, layers_skipped
    over_repeats : a row per (network, interpreter, selector, budget): n_draws, and {column}_mean and {column}_std over
        seeds and repeats of phi_0, phi_05, phi_1, null_0, null_05, null_1 (radians), accuracy, accuracy_top5,
        agreement, accuracy_plain, accuracy_plain_top5, error_fit, error_val (0..1), n_kept, left_out, seconds; with
        VEBI units_mean (of a class) and never_predicted_mean (classes)
    robustness : a row per (network, interpreter, selector): n_draws, and over budgets 0.1 to 0.5 mean_0, std_0,
        mean_05, std_05, mean_1, std_1 (radians), each with its {column}_spread over draws; null_0, null_05, null_1
    galleries : heat maps
    units : the units of VEBI; None without it
    cards : the features of each class with their images; None without any
    transfer : as `tasks.metrics.transfer.transfer_table` gives it; no rows without transfer
    transfer_summary : as `tasks.metrics.transfer.transfer_summary` gives it
    against_random, with_budget : as `tasks.metrics.comparisons` gives them
    selections : a row per coreset and class: network, seed, selector, coreset_from, repeat, budget, label, kept, of,
        median_distance (NaN unless logged), gamma_f, gamma_r, scale, combine, message
    seen : by network, what learns from the images on which features are compared: "features" or "network"; networks for
        which these images are held out are not in it
    methods : further tables by name: `units` and `coverage` of VEBI, and `topics`, a row per topic of the first draws:
        network, seed, selector, repeat, budget, topic, shapley, nearest, nearest_cosine, completeness, accuracy,
        duplicates
    """

    networks: pd.DataFrame
    classes: pd.DataFrame
    by_budget: pd.DataFrame
    over_repeats: pd.DataFrame
    robustness: pd.DataFrame
    galleries: tuple[Gallery, ...] = ()
    units: UnitResults | None = None
    cards: CardResults | None = None
    transfer: pd.DataFrame = field(default_factory=pd.DataFrame)
    transfer_summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    against_random: pd.DataFrame = field(default_factory=pd.DataFrame)
    with_budget: pd.DataFrame = field(default_factory=pd.DataFrame)
    selections: pd.DataFrame = field(default_factory=pd.DataFrame)
    seen: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, pd.DataFrame] = field(default_factory=dict)
