"""What the detectors of question 3 looked at, in words."""

from collections.abc import Sequence

from storage.stages import open_finished
from storage.stores import Store
from tasks.report.concepts.paradigms import Paradigm
from tasks.report.concepts.results import ConceptFacts
from tasks.steps.concepts.attacked import attack_text
from tasks.steps.concepts.neurons import temperature_of
from tasks.steps.concepts.plan import Monitored, View


def concept_facts(store: Store, answers: Sequence[Monitored], privacy: str) -> ConceptFacts:
    """Return what the detectors looked at; `privacy` says why there are no images."""
    first = answers[0]
    stage = next(iter(first.responses[0].values()))
    responses = open_finished(store, stage)
    words = open_finished(store, first.views[0].words)
    side = next((view.probed.side for view in first.views if view.probed.side is not None), None)
    return ConceptFacts(
        probing=str(stage.inputs["data"].place["name"]),
        n_images=int(responses.summary["samples"]),
        n_words=int(words.summary["words"]),
        image_text="" if side is None else str(side.inputs["words"].place["text"]["name"]),
        detectors={view.name: _parameters(view, first) for view in first.views},
        privacy=privacy,
        attack=attack_text(answers),
        paradigms={answer.network: Paradigm(*answer.paradigm) for answer in answers if answer.paradigm is not None},
    )


def _parameters(view: View, answer: Monitored) -> str:
    """Return the parameters of a detector in words."""
    spec = next(seen.neurons for seen in answer.seen if seen.view is view)
    stage = spec.inputs["detected"]
    of_thresholds = stage.inputs["thresholds"].parameters if "thresholds" in stage.inputs else {}
    own = {**of_thresholds, **stage.parameters.get("settings", stage.parameters)}
    own = {key: value for key, value in own.items() if key not in ("layer", "seed")}
    shown = own | {"temperature": temperature_of(spec), "tau": spec.parameters.get("tau", "by default")}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
