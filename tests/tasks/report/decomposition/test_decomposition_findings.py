"""The headline sentences of the decomposition page, worked by hand, for both outcomes."""

import numpy as np
import pandas as pd
import pytest

from tasks.report.decomposition.claims import claims_table, grid_test
from tasks.report.decomposition.findings import family_findings, network_findings
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.decomposition.verdicts import chance, points
from tasks.report.formats import NBSP
from tests.tasks.report.decomposition.decomposed_network import claims, frame, page_of, retrained, say


def test_few_features_suffice_or_not() -> None:
    assert say(page_of())["Few features"] == [
        "With 5 of 64 features for each class the network classifies 85.5 % of 10,000 val images correctly. With all "
        "64 features it classifies 90.0 %: r_A = 0.950. Both predict the same class for 93.0 %. The paper's claim that "
        "few filters suffice holds here. An r_A of 0.9 counts as enough; this is this report's yardstick."
    ]
    poor = page_of({"ratio": 0.85, "agreement": np.nan})
    assert "r_A = 0.850. The paper's claim that few filters suffice does not hold here" in say(poor)["Few features"][0]
    assert claims(page_of())["few filters suffice"] == "yes: r_A 0.950"
    assert claims(poor)["few filters suffice"] == "no: r_A 0.850"
    assert "Few features" not in say(page_of({"ratio": np.nan}))


def test_negative_features_and_ties_are_warned_of() -> None:
    assert "Warning" not in say(page_of())
    (signed,) = say(page_of({"signed": True}))["Warning"]
    assert "A large negative feature may speak against the class" in signed
    assert "Warning" not in say(page_of({"signed": True, "rank_by": "value"}))
    (ties,) = say(page_of({"ties": 3}))["Warning"]
    assert ties.startswith("In 3 of 10 classes there is a tie at the cut")


def test_best_at_k2_equal_to_k1_holds_is_refuted_or_stays_open() -> None:
    cells = {"k1": ["2", "2", "10", "10"], "k2": [2, 10, 2, 10], "ratio": np.nan, "agreement": np.nan}
    holds = page_of(grid=frame(cells | {"accuracy": [0.8, 0.7, 0.75, 0.85]}))
    assert say(holds)["k1 and k2"] == [
        "With k1 fixed the best k2 tried is k1 itself in 2 of 2 cases; with k2 fixed the best k1 tried is k2 itself in "
        "2 of 2 cases. The paper's claim that k2 = k1 is best holds here. Best of the grid: 85.0 % at k1 = 10, k2 = 10."
    ]
    assert claims(holds)["k2 = k1 is best"] == "yes: in all cases"
    missed = page_of(grid=frame(cells | {"accuracy": [0.8, 0.84, 0.75, 0.85]}))
    (text,) = say(missed)["k1 and k2"]
    assert "with k1 = 2, k2 = 10 gives 84.0 %, 4.0 points more than k2 = 2." in text
    assert "The paper's claim that k2 = k1 is best does not hold here." in text
    assert claims(missed)["k2 = k1 is best"] == "no: 4.0 points short"
    near = page_of(grid=frame(cells | {"accuracy": [0.8, 0.805, 0.75, 0.85]}))
    assert (
        "within chance (two standard errors, 1.1 points): the claim is not refuted here." in say(near)["k1 and k2"][0]
    )
    assert claims(near)["k2 = k1 is best"] == "open: 0.5 points short"
    apart = frame({"k1": ["2", "coverage 0.9"], "k2": [3, 3], "accuracy": 0.5})
    assert grid_test(apart, 100, 64) is None  # no cell with k2 = k1 has another to compare with


def test_where_all_are_equal_none_is_best() -> None:
    cells = {"k1": ["2", "2", "10", "10"], "k2": [2, 10, 2, 10], "ratio": np.nan, "agreement": np.nan}
    equal = page_of(grid=frame(cells | {"accuracy": 0.1}))
    assert "k1 and k2" not in say(equal)
    assert "k2 = k1 is best" not in claims(equal)
    # k1 = 2 and k2 = 10 decide nothing
    partly = page_of(grid=frame(cells | {"accuracy": [0.1, 0.1, 0.05, 0.1]}))
    assert say(partly)["k1 and k2"][0].startswith(
        "With k1 fixed the best k2 tried is k1 itself in 1 of 1 case; with k2 fixed the best k1 tried is k2 itself in "
        "1 of 1 case."
    )


@pytest.mark.parametrize(("share", "holds"), [(0.61, "does not hold"), (0.95, "holds")])
def test_coverage_is_a_mean_over_images(share: float, holds: str) -> None:
    rows = {"class_name": ["cat", "dog"], "n": [300, 100], "own_top_share": [share, share + 0.02]}
    held = frame(rows | {"l1_share": [0.4, 0.8], "histogram_share": 0.7, "logit_share": 0.6})
    mine, sets = say(page_of(coverage=held))["Coverage"]
    assert mine == (
        f"Each image's own largest features (k1 = 5) hold {100 * share + 0.5:.1f} % of the l1 norm, mean over "
        f"images. The least is {100 * share:.1f} %, in cat. The paper's claim that k1 = 5 covers 90 % {holds} here."
    )
    assert sets == (  # (300 * 0.4 + 100 * 0.8) / 400
        "The sets hold 50.0 % of the l1 norm, 70.0 % of the counts and 60.0 % of the positive contribution to the own "
        "logit of their classes' images. These are means of the classes, each weighed by its number of images, 400 in "
        "all."
    )
    other = page_of({"k1": "10"}, coverage=held)
    assert say(other)["Coverage"][0].endswith("is not tested by this k1.")
    assert "k1 = 5 covers 90 %" not in claims(other)


def controls(own: float, mean: float, random: float = 0.3, k: int = 5) -> pd.DataFrame:
    """Three ways to choose features."""
    rows = {"method": ["class-mean", "histogram", "random"], "k": k, "draws": [1, 1, 20]}
    return frame(rows | {"accuracy": [mean, own, random], "accuracy_std": [0.0, 0.0, 0.04]})


def test_the_histogram_wins_loses_or_is_not_special() -> None:
    best, random = say(page_of(controls=controls(0.855, 0.8)))["Controls"]
    assert best == (
        "With 5 features per class Algorithm 1 reaches 85.5 %; the other method, class mean, 80.0 %. The "
        "histogram wins by 5.5 points."
    )
    assert random == "Random sets of 5 reach 30.0 ± 4.0 % (20 draws); Algorithm 1 is 55.5 points above."
    lost = page_of(controls=controls(0.8, 0.855))
    assert "The histogram loses by 5.5 points; 1 of 1 methods are better beyond chance." in say(lost)["Controls"][0]
    assert claims(lost)["histogram beats others"] == "no: 5.5 points below class mean"
    even = page_of(controls=controls(0.855, 0.86))
    assert "within chance (two standard errors, 1.0 points): the histogram is not shown" in say(even)["Controls"][0]
    assert claims(even)["histogram beats others"].startswith("open: 0.5 points below")
    poor = say(page_of(controls=controls(0.35, 0.2)))["Controls"][1]
    assert poor.endswith("5.0 points above, within chance: it is not shown to be better than random sets.")
    assert say(page_of(controls=controls(0.8, 0.7, k=9)))["Controls"][0].startswith("With 9 features")
    assert "Controls" not in say(page_of(controls=controls(0.8, 0.7)[:1]))


def test_equal_rivals_of_the_histogram_are_counted() -> None:
    rows = {"method": ["class-mean", "weight", "abs-weight", "histogram"], "k": 5, "draws": 1, "accuracy_std": 0.0}
    (text,) = say(page_of(controls=frame(rows | {"accuracy": [0.1, 0.8, 0.8, 0.9]})))["Controls"]
    assert "the best of 3 other methods, weight W and 1 equal to it, 80.0 %." in text


def test_few_is_at_most_half_of_the_features() -> None:
    half, more = page_of({"k2": 32}), page_of({"k2": 33})
    assert claims(half)["few filters suffice"] == "yes: r_A 0.950"
    assert claims(more)["few filters suffice"] == "not tested: 33 of 64"
    assert say(more)["Few features"][0].endswith(
        "These are more than half of the features: the paper's claim that few filters suffice is not tested."
    )
    assert "holds here" not in say(more)["Few features"][0]


def test_the_full_head_takes_no_part_in_the_grid() -> None:
    cells = {"k1": ["2", "2", "64", "64"], "k2": [2, 64, 2, 64], "accuracy": [0.8, 0.9, 0.7, 0.9]}
    page = page_of(grid=frame(cells | {"ratio": np.nan, "agreement": np.nan}))
    assert say(page)["k1 and k2"] == [
        "With k2 fixed the best k1 tried is k2 itself in 1 of 1 case. The paper's claim that k2 = k1 is best holds "
        "here. Best of the grid: 80.0 % at k1 = 2, k2 = 2. Cells with k2 = 64 are the full head and take no part."
    ]
    assert claims(page)["k2 = k1 is best"] == "yes: in all cases"
    assert "take no part" not in say(page_of({"n_features": 65}, grid=page.grid))["k1 and k2"][0]


def test_one_image_of_each_class_is_one() -> None:
    one = frame({"n_images": [1], "overlap": [0.95], "accuracy": [0.8]})
    assert say(page_of(sample_need=one))["Images"] == [
        "The first image of each class gives 95.0 % of the full sets, the fewest tried. The accuracy with these sets "
        "is 80.0 %."
    ]


def test_random_sets_are_measured_by_draws_and_images() -> None:
    near = say(page_of({"n_evaluate": 100}, controls=controls(0.42, 0.4, 0.3)))["Controls"][1]
    assert near.endswith("12.0 points above, within chance: it is not shown to be better than random sets.")
    assert say(page_of(controls=controls(0.42, 0.4, 0.3)))["Controls"][1].endswith("12.0 points above.")


def test_gates_that_hardly_closed_are_warned_of() -> None:
    rows = frame({"split": ["train"], "std_accuracy": 0.88, "csg_accuracy": 0.9, "overlap": 0.4, "a_decomposed": 0.6})
    (text,) = say(page_of(gates=rows.assign(mean_gate=0.82)))["CSG"]
    assert text.endswith(
        "The mean gate is 0.820 of 1: the gates hardly closed, so the sets of the largest gates say little. A "
        "larger gates.lr closes them."
    )
    for mean in (0.5, np.nan):
        assert "hardly closed" not in say(page_of(gates=rows.assign(mean_gate=mean)))["CSG"][0]


def test_retraining_recovers_part_all_more_or_nothing() -> None:
    part = page_of(retraining=retrained(0.85))
    assert say(part)["Retraining"] == [
        "Retraining the decomposed head alone, features fixed, 2 epochs: from 80.0 % to 85.0 % (full head 90.0 %): it "
        "recovers 50 % of the 10.0 points lost."
    ]
    assert claims(part)["head alone"] == "50 % of 10.0 points"
    more = say(page_of(retraining=retrained(0.93, "network")))["Retraining"][0]
    assert more.startswith("Retraining the whole network, 2 epochs")
    assert more.endswith("it recovers all of the 10.0 points lost and 3.0 points more.")
    assert say(page_of(retraining=retrained(0.7)))["Retraining"][0].endswith(
        "recovers nothing of the 10.0 points lost."
    )
    assert say(page_of(retraining=retrained(0.9)))["Retraining"][0].endswith("it recovers all that was lost.")
    nothing = page_of(retraining=retrained(0.95, first=0.9))
    assert say(nothing)["Retraining"][0].endswith(". Decomposing had lost nothing.")
    assert "head alone" not in claims(nothing)
    assert "Retraining" not in say(page_of(retraining=retrained(0.9)[:1]))


def test_classes_overlap_images_gates_and_cost() -> None:
    found = say(
        page_of(
            classes=frame({"class_name": ["cat", "dog", "emu"], "a_full": 0.9, "a_decomposed": [0.7, 0.92, 0.9]}),
            sample_need=frame({"n_images": [100, 1, 10], "overlap": [0.95, 0.93, 0.8], "accuracy": [0.85, 0.8, 0.7]}),
            gates=frame({"split": ["train"], "std_accuracy": 0.88, "csg_accuracy": 0.9, "mean_gate": 0.2}).assign(
                overlap=0.4, a_decomposed=0.6
            ),
            head_times=frame({"batch": [1, 32], "dense_ms": [1.0, 2.0], "decomposed_ms": [1.5, 0.5]}),
        )
    )
    assert found["Classes"] == [
        "1 of 3 classes lose accuracy, 1 gain; most is lost by cat: 90.0 % to 70.0 %, 20.0 points."
    ]
    assert found["Overlap"] == [
        "Two classes have 20.0 % of their sets in common on average; 32 of 64 features are in any set (50.0 %)."
    ]
    assert found["Images"] == [  # one image gives 93 %, but ten less than 90 %
        "The first 100 images of each class give 95.0 % of the full sets. The accuracy with these sets is 85.0 %."
    ]
    assert "which need the label, it classifies 90.0 %. The sets of the largest gates share 40.0 %" in found["CSG"][0]
    assert found["Cost"] == [
        "The head needs 50 instead of 640 multiply-adds, 12.8 times fewer. The head has 1.00 % of the network's "
        "multiply-adds, so 0.922 % of them are saved.",
        "Measured, the decomposed head takes 0.25 × the time of the dense one at batch 32, its best. It is not "
        "faster at batch 1.",
    ]
    few = frame({"n_images": [10], "overlap": 0.5, "accuracy": 0.4})
    assert "do not give 90 % of the full sets: 50.0 %, accuracy 40.0 %." in say(page_of(sample_need=few))["Images"][0]
    fast = frame({"batch": [1, 32], "dense_ms": [1.0, 2.0], "decomposed_ms": [0.9, 0.5]})
    assert say(page_of(head_times=fast))["Cost"][1].endswith("and is faster at all 2 batch sizes tried.")


def family(ratios: list[float], n_images: int = 10_000) -> pd.DataFrame:
    """Networks of one family, of 20 layers and 12 more each."""
    depth = [20 + 12 * i for i in range(len(ratios))]
    rows = {"network": [f"r{d}" for d in depth], "seed": 0, "model": [f"resnet{d}" for d in depth], "depth": depth}
    rows |= {"n_classes": 10, "ratio": ratios, "overlap_mean": [0.3 - 0.01 * i for i in range(len(ratios))]}
    return pd.DataFrame(rows | {"a_full": 0.9, "n_evaluate": n_images})


def test_growth_with_depth_holds_or_does_not() -> None:
    grows, overlap = (f.text.replace(NBSP, " ") for f in family_findings(family([0.9, 0.93, 0.96])))
    assert grows == (
        "r_A by depth, resnet: r20 0.900, r32 0.930, r44 0.960. It grows at 2 of 2 steps; the deepest is 0.060 higher "
        "than the shallowest. The paper's claim that r_A grows with depth holds here."
    )
    assert overlap == "Mean overlap of the sets of two classes, resnet: it falls from 30.0 % in r20 to 28.0 % in r44."
    small = family_findings(family([0.9, 0.93, 0.931]))[0].text
    assert "holds here, though the smallest step is within chance" in small
    falls = family_findings(family([0.96, 0.93, 0.95]))[0].text
    assert "It grows at 1 of 2 steps; the deepest is 0.010 lower" in falls
    assert falls.endswith("r_A grows with depth does not hold here.")
    dips = family_findings(family([0.93, 0.929, 0.96]))[0].text
    assert "does not hold here, though no fall exceeds chance" in dips
    assert family_findings(family([0.9])) == []


def test_chance_and_points() -> None:
    assert chance(0.5, 0.5, 10_000) == pytest.approx(2 * np.sqrt(0.5 / 10_000))
    assert points(-0.0123) == f"1.2{NBSP}points"
    assert points(0.0003) == f"0.03{NBSP}points"


def test_nothing_known_nothing_said() -> None:
    bare = DecompositionResults(networks=pd.DataFrame()).completed()
    assert network_findings(bare) == []
    assert family_findings(bare.networks) == []
    assert claims_table([bare]) is None
