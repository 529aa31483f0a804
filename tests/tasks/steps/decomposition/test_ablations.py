"""Noise in place of features, against a plain loop over images and draws."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tasks.decomposition import choose_replaced, draw_normals
from tasks.engine.life import complete
from tasks.steps.decomposition import ablation
from tasks.steps.decomposition.ablation import WHICHES, read_accuracies
from tasks.steps.decomposition.histogram import read_sets
from tests.tasks.steps.decomposition.loops import answer, model_of, opened, plain

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.mark.parametrize("noise", ["standard", "feature_moments"])
@pytest.mark.parametrize("scope", ["label", "predicted", "union"])
def test_noise_takes_the_place_of_features(decomposed_run: "Run", noise: str, scope: str) -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, logits, labels = plain(decomposed_run, found.evaluate)
    ids = opened(decomposed_run, found.evaluate).read("sample_id").astype(np.int64)
    learned = opened(decomposed_run, found.learn).read("features").astype(np.float64)
    sets = read_sets(store, found.histogram, 4)
    model = model_of(decomposed_run)
    accuracies = read_accuracies(opened(decomposed_run, found.ablations[noise, scope]))
    asked = labels if scope != "predicted" else logits.argmax(1)
    assert (logits.argmax(1) != labels).any()
    for draw in range(2):
        normals = draw_normals(ids, 16, seed=0, draw=draw)
        if noise == "feature_moments":
            normals = learned.mean(0) + learned.std(0) * normals
        equal = choose_replaced(sets, 16, "equal-size", scope=scope, seed=0, draw=draw)  # type: ignore[arg-type]  # a str
        for which in WHICHES:
            right = 0
            for x, label, own, new in zip(features, labels, asked, normals, strict=True):
                members = {*sets[own].tolist()} if scope != "union" else {*sets.ravel().tolist()}
                given = {
                    "influential": members,
                    "others": {*range(16)} - members,
                    "equal-size": {*np.flatnonzero(equal[own]).tolist()},
                }[which]
                if which == "equal-size":
                    assert not given & members
                    assert len(given) == min(len(members), 16 - len(members))
                changed = [new[j] if j in given else x[j] for j in range(16)]
                with torch.inference_mode():
                    right += int(model[-1](torch.tensor(changed)).argmax() == label)
            assert accuracies[which][draw] == right / len(labels), (which, draw)


def test_ablations_are_made_of_the_same_draws_together_and_apart(
    decomposed_run: "Run", tmp_path: Any
) -> None:  # Any: a path
    again = decomposed_run.at(str(tmp_path / "again"))
    for spec in answer(again).ablations.values():
        again.job.store.remove(spec.path)
        complete(again.job, ablation.ABLATION, [spec])
        one, other = opened(again, spec), opened(decomposed_run, spec)
        assert one.read("correct").tobytes() == other.read("correct").tobytes()
