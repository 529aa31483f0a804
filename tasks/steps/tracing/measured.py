"""The unit that a score of the whole network is about, where it is not about the network's answer."""

from storage.specs import StageSpec
from tasks.engine.survey import Survey
from tasks.steps.common.recording import recorded_layers
from tasks.steps.tracing.layers import check_calls, check_units, unit_of


def measured_unit(spec: StageSpec) -> tuple[str, int] | None:
    """Return layer and index of the unit that a score is about, None for the network's answer."""
    if "unit" not in spec.parameters:
        return None
    layer, index = unit_of(str(spec.parameters["unit"]))
    assert index is not None, spec
    return layer, index


def score_label(spec: StageSpec, score: str) -> str:
    """Return the name of a comparison's score, with the unit that it is about."""
    found = spec.inputs.get(score)
    return score if found is None or "unit" not in found.parameters else f"{score} of {found.parameters['unit']}"


def check_measured(spec: StageSpec, survey: Survey, key: str) -> None:
    """Raise ValueError for a unit that the network does not have, or in a layer that is not called exactly once."""
    if (unit := measured_unit(spec)) is None:
        return
    from tasks.modules import kind_of

    training = spec.inputs["network"]
    layers = {name: module for name, module in recorded_layers(training, survey).items() if kind_of(module) is not None}
    check_units([str(spec.parameters["unit"])], layers, f"{key}.unit")
    check_calls(training, survey, unit[0], f"{key}.unit")
