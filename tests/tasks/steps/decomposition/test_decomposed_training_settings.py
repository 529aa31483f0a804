"""Settings of a decomposed training: those that decide the result are in its key, those of other trainings refused."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from configs.training import Training
from tasks.steps.decomposition.decomposed_training import Scope, decomposed_training_spec
from tests.tasks.steps.decomposition.loops import answer
from tests.tasks.steps.decomposition.retrainings import K2, Tree, spec_of

if TYPE_CHECKING:
    from tests.conftest import Run


def test_what_decides_the_result_is_in_the_key(run_of: Callable[..., "Run"], decomposed_run: "Run") -> None:
    base = spec_of(run_of("head"))
    others = [
        spec_of(run_of("head", epochs=2)),
        spec_of(run_of("head", checkpoint_every=6)),
        spec_of(run_of("network")),
        answer(decomposed_run).retrained["head"],
    ]
    assert len({base.key, *(spec.key for spec in others)}) == 5
    assert spec_of(run_of("head", clip=None, schedule={"kind": "constant"})).key == base.key


REFUSED: list[tuple[Scope, Tree, str]] = [
    ("network", {"start": "w.pt"}, "retraining of a decomposed network of small: expected settings without `start`"),
    (
        "network",
        {"gates": {"lr": 1, "plain_epochs": 0, "period": 1}},
        "network of small: expected settings without `gates`",
    ),
    ("head", {"record": {}}, "head of small: expected settings without `record`"),
    ("head", {"snapshots": 2}, "head of small: expected settings without `snapshots`"),
    ("head", {"augment": {"flip": True}}, "head of small: expected settings without `augment`"),
]


@pytest.mark.parametrize(("scope", "settings", "message"), REFUSED)
def test_settings_of_other_trainings_are_refused(
    decomposed_run: "Run", scope: Scope, settings: Tree, message: str
) -> None:
    one, run = answer(decomposed_run), decomposed_run
    asked = {"data": "digits", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.1}, **settings}
    features = {"learn": one.learn, "evaluate": one.evaluate}
    with pytest.raises(ValueError, match=message):
        decomposed_training_spec(
            "small",
            run.config.networks["small"],
            run.plan.shared.trainings["small", 0],
            one.histogram,
            K2,
            features,
            Training.model_validate(asked),
            scope,
            0,
        )
