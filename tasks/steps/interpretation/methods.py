"""All methods of interpretation by name, and the check of those that a config names."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from configs.interpretation import Interpretation
from storage.specs import StageSpec
from tasks.coresets import ACROSS_CLASSES, DRAWN, SELECTORS
from tasks.interpreters import INTERPRETERS
from tasks.interpreters.topics import check as check_topics
from tasks.steps.interpretation.coreset_maps import RECOMPUTE
from tasks.steps.interpretation.features import FEATURES, features_spec, n_columns, read_features
from tasks.steps.interpretation.method import Method
from tasks.steps.interpretation.responses import UNIT_RESPONSES
from tasks.steps.interpretation.topic_scores import TOPIC_SCORES, topic_scores_spec, topic_tables
from tasks.steps.interpretation.topics import TOPICS, n_topics, read_topics, topics_spec
from tasks.steps.interpretation.unit_cards import unit_cards_spec
from tasks.steps.interpretation.unit_evaluation import UNIT_EVALUATION, unit_evaluation_spec, unit_tables
from tasks.steps.interpretation.unit_gram import UNIT_GRAM
from tasks.steps.interpretation.unit_pictures import UNIT_PICTURES, unit_pictures_spec
from tasks.steps.interpretation.units import METHOD as VEBI
from tasks.steps.interpretation.units import UNITS, grown_units_spec, read_units, unit_numbers, units_spec
from tasks.steps.interpretation.units import check as check_units
from tasks.steps.interpretation.units import n_columns as n_unit_columns


def one_stage(name: str) -> Method:
    """Return the method that fits an interpreter of `INTERPRETERS` in one stage."""
    plan = partial(features_spec, name)
    check = INTERPRETERS[name].check
    return Method((FEATURES,), plan, read_features, check, n_columns, directed=read_features, noun="component")


METHODS: dict[str, Method] = {  # a method with stages of its own is a line here; its files lie in this folder
    **{name: one_stage(name) for name in INTERPRETERS},
    VEBI: Method(
        (UNIT_RESPONSES, UNIT_GRAM, UNITS, UNIT_EVALUATION, UNIT_PICTURES),
        units_spec,
        read_units,
        check_units,
        n_unit_columns,
        evaluate=unit_evaluation_spec,
        grow=grown_units_spec,
        pictures=unit_pictures_spec,
        cards=unit_cards_spec,
        numbers=unit_numbers,
        noun="unit",
        reads_maps=lambda _: False,
        tables=unit_tables,
    ),
    "topics": Method(
        (TOPICS, TOPIC_SCORES),
        topics_spec,
        read_topics,
        check_topics,
        n_topics,
        scores=topic_scores_spec,
        directed=read_topics,
        noun="topic",
        reads_maps=lambda parameters: parameters.get("maps") != RECOMPUTE,
        tables=topic_tables,
    ),
}


def method_of(features: StageSpec) -> Method:
    """Return the method that planned a stage of features."""
    return METHODS[features.parameters["interpreter"]]


def check_methods(asked: Interpretation) -> None:
    """Check every selector and interpreter of question 1.

    Raises
    ------
    ValueError : an unknown method, or parameters that a method cannot take; the message names the config's key
    """
    for name, settings in asked.selectors.items():
        key = f"interpretation.selectors.{name}"
        select = _known(key, name, SELECTORS)
        repeats = settings.get("repeats", 1)
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise ValueError(f"{key}.repeats: expected an integer of at least 1, found {repeats!r}")
        if repeats > 1 and name not in DRAWN:  # a spread of 0 over equal draws would look like certainty
            raise ValueError(f"{key}.repeats: expected 1, as {name} chooses the same each time, found {repeats}")
        more = {"repeats", "scope"} if name in ACROSS_CLASSES else {"repeats"}
        if "scope" in more and (scope := settings.get("scope", "class")) not in ("class", "dataset"):
            raise ValueError(f"{key}.scope: expected class or dataset, found {scope!r}")
        parameters = {k: v for k, v in settings.items() if k not in more}
        _check_parameters(key, select, parameters, {"features", "rho", "seed"}, more)
        _check_values(key, partial(select, np.zeros((1, 1)), 0.5, seed=0, **parameters))
    for name, parameters in asked.interpreters.items():
        key = f"interpretation.interpreters.{name}"
        method = _known(key, name, METHODS)
        _check_parameters(key, method.check, parameters, set(), set())
        _check_values(key, partial(method.check, **parameters))


def _known(key: str, name: str, methods: Mapping[str, Any]) -> Any:  # Any: a selector or an interpreter
    """Return a method by name; raise ValueError for an unknown name."""
    if name not in methods:
        raise ValueError(f"{key}: expected one of {', '.join(methods)}, found {name!r}")
    return methods[name]


def _check_parameters(
    key: str, function: Callable[..., object], parameters: Mapping[str, object], own: set[str], more: set[str]
) -> None:
    """Raise ValueError for a parameter that `function` does not have."""
    known = sorted((set(inspect.signature(function).parameters) - own) | more)
    for name in parameters:
        if name not in known:
            raise ValueError(f"{key}.{name}: unknown parameter; known: {', '.join(known) or 'none'}")


def _check_values(key: str, call: Callable[[], object]) -> None:
    """Raise ValueError, with the config's key, where a method refuses its parameters."""
    try:
        call()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key}: {error}") from error
