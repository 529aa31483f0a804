"""What the decomposition page says of noise in the features, worked by hand, for every outcome."""

import numpy as np
import pandas as pd
import pytest

from tasks.report.decomposition.noise import hurts_more, noise_rows
from tests.tasks.report.decomposition.decomposed_network import claims, noise, page_of, say


def test_noise_claim_and_the_control_of_equal_size() -> None:
    assert say(page_of(ablation=noise(0.49, 0.82, 0.88)))["Noise"] == [
        "Noise N(0, 1) (scope label) in the influential features leaves 49.0 ± 1.0 % correct, in all others 82.0 ± 1.0 "
        "% (without noise 90.0 %). The paper's claim that noise in the influential features hurts more than in the "
        "others holds here. In as many other features, drawn at random, it leaves 88.0 ± 1.0 %: feature for feature "
        "the influential ones matter more (41.0 points lost against 2.0 points)."
    ]
    turned = page_of(ablation=noise(0.82, 0.49, 0.81))
    (text,) = say(turned)["Noise"]
    assert "hurts more than in the others does not hold here." in text
    assert text.endswith("the influential ones are not shown to matter more.")
    assert claims(turned)["all others"] == "no: 82.0 % / 49.0 %"
    assert claims(turned)["as many others"] == "open: 82.0 % / 81.0 %"
    even = page_of(ablation=noise(0.82, 0.83, 0.88))
    # 2 sqrt(.82 * .18 / 1e4 + .83 * .17 / 1e4 + .01^2 + .01^2) = .0302
    assert "within chance (images and draws, 3.0 points): the paper's claim is not shown" in say(even)["Noise"][0]
    alone = noise(0.49, 0.82, 0.88)[:2]
    assert "Without a control of equal size" in say(page_of(ablation=alone))["Noise"][0]
    assert "There is no control" not in say(page_of(ablation=alone))["Noise"][0]  # there could be one


@pytest.mark.parametrize(("draws", "spread"), [(5, 0.0), (1, np.nan)])
def test_noise_is_open_within_the_chance_of_few_images(draws: int, spread: float) -> None:
    near = noise(300 / 359, 302 / 359, 330 / 359).assign(draws=draws, accuracy_std=spread, noise="zero")
    page = page_of({"n_evaluate": 359}, ablation=near)
    (text,) = say(page)["Noise"]
    assert "within chance (images and draws, 5.5 points): the paper's claim is not shown here." in text
    assert claims(page)["all others"] == "open: 83.6 % / 84.1 %"
    assert claims(page)["as many others"] == "yes: 83.6 % / 91.9 %"
    many = page_of({"n_evaluate": 359_000}, ablation=near)
    assert claims(many)["all others"] == "yes: 83.6 % / 84.1 %"
    unknown = hurts_more(noise_rows(near, ("zero", "label"), page.networks.iloc[0]), "others", float("nan"))
    assert unknown == "open"


def test_a_control_that_cannot_be_is_told_and_claims_nothing() -> None:
    alone = noise(0.49, 0.82, 0.88)[:2]
    wide = page_of({"k2": 33}, ablation=alone)
    (text,) = say(wide)["Noise"]
    assert text.endswith(
        "There is no control of equal size: the sets hold more than half of the features. Without a control of equal "
        "size the effect of which features cannot be separated from that of how many."
    )
    assert "as many others" not in claims(wide)
    assert "There is no control" not in say(page_of({"k2": 32}, ablation=alone))["Noise"][0]
    union = alone.assign(scope="union", noise="zero")
    main, others = say(page_of({"union": 33}, ablation=pd.concat([noise(0.49, 0.82, 0.88), union])))["Noise"]
    assert "There is no control" not in main
    assert others == (
        "Of 1 other noises and scopes, these hurt more in all others than in the influential features: none. zero "
        "(scope union): no control of equal size: the sets hold more than half of the features."
    )
    everything = page_of({"k2": 64}, ablation=alone)  # all others are none
    assert "in all others" not in say(everything)["Noise"][0]
    assert "The paper's claim" not in say(everything)["Noise"][0]
    assert "all others" not in claims(everything)


def test_other_noises_that_turn_the_conclusion_round_are_named() -> None:
    rows = pd.concat([noise(0.8, 0.6, 0.81, "feature_moments"), noise(0.5, 0.9, 0.9, "zero"), noise(0.49, 0.82, 0.88)])
    main, others = say(page_of(ablation=rows))["Noise"]
    assert main.startswith("Noise N(0, 1) (scope label)")  # the authors' first, whatever the order
    assert others == (
        "Of 2 other noises and scopes, these hurt more in all others than in the influential features: own "
        "moments (scope label). These are not shown to hurt more in the influential features than in as many others: "
        "own moments (scope label)."
    )
