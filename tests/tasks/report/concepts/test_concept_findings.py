"""The answer and the paper's observations, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from tasks.report.concepts.answers import answer, other_answers
from tasks.report.concepts.findings import first_third, observations, trust_findings
from tasks.report.concepts.orders import count_above, kept_order, order_observation
from tasks.report.concepts.verdicts import difference
from tasks.report.formats import NBSP

BEST = ("snapshot", "layer", "neuron", "similarity")
CURVES = ("snapshot", "layer", "tau", "interpretable", "null")
TEMPERATURES = ("snapshot", "layer", "temperature", "d_anchor")


def monitored(
    layers: dict[str, list[int]], d_anchor: list[float], distinct: list[int], neurons: int = 64
) -> pd.DataFrame:
    """Make the monitor of layers by their interpretable neurons at each snapshot."""
    rows = [
        {
            "snapshot": s,
            "step": 30 * s,
            "label": f"step {30 * s}",
            "layer": layer,
            "neurons": neurons,
            "dead": 0,
            "d_anchor": d_anchor[s],
            "interpretable": count,
            "null_interpretable": 2,
            "distinct": distinct[s],
            "tau": 0.2,
        }
        for layer, counts in layers.items()
        for s, count in enumerate(counts)
    ]
    return pd.DataFrame(rows)


def counted(rows: list[tuple[int, str, str, int]]) -> pd.DataFrame:
    """Make rows of categories: snapshot, layer, category, neurons."""
    return pd.DataFrame(rows, columns=["snapshot", "layer", "category", "neurons"])


MONITOR = monitored({"conv1": [1, 5, 30], "conv2": [2, 12, 41]}, [1.2, 0.8, 0.7], [2, 16, 20])
COMMON = pd.DataFrame(
    {"snapshot": 2, "layer": ["conv1", "conv2", "conv2"], "word": ["red", "dots", "stripes"], "neurons": [30, 4, 9]}
)
CATEGORIES = counted(
    [
        *((0, "conv1", "color", 1), (0, "conv2", "texture", 2)),
        *(
            (2, "conv1", "color", 20),
            (2, "conv1", "object", 10),
            (2, "conv2", "scene", 36),
            (2, "conv2", "material", 5),
        ),
    ]
)
NONE = counted([])


def said(monitor: pd.DataFrame = MONITOR, categories: pd.DataFrame = CATEGORIES) -> dict[str, tuple[str, str]]:
    """Return state and text by name, with plain spaces."""
    none = {"concepts": BEST, "tau_curves": CURVES, "temperatures": TEMPERATURES}
    tables = {name: pd.DataFrame(columns=[*columns]) for name, columns in none.items()}
    found = observations({**tables, "monitor": monitor, "categories": categories})
    return {each.name: (each.state, each.text.replace(NBSP, " ")) for each in found}


def test_the_answer_is_of_the_layer_that_holds_most() -> None:
    assert answer(MONITOR, COMMON) == (
        "41 of 64 neurons of layer conv2 hold a concept at the end of training (by chance 2); 2 at step 0, "
        "12 at step 30; most common: stripes (9 neurons)."
    )
    assert answer(MONITOR[MONITOR["snapshot"] == 2], COMMON[:0]) == (
        "41 of 64 neurons of layer conv2 hold a concept (by chance 2)."
    )
    dead = MONITOR.assign(interpretable=0, dead=64)
    assert answer(dead, COMMON[:0]) == (
        "None of the 128 neurons holds a concept at the end of training; 128 of them are dead."
    )
    one = MONITOR.assign(interpretable=0, dead=(MONITOR["layer"] == "conv1").astype(int))
    assert answer(one, COMMON[:0]).endswith("; 1 of them is dead.")
    assert answer(MONITOR[:0], COMMON[:0]) == "No layer was looked at."


def test_the_answer_is_of_the_layer_that_holds_most_beyond_chance() -> None:
    # 41 - 40 of 64 in conv2 are less than 30 - 2 of 64 in conv1.
    by_chance = MONITOR.assign(null_interpretable=MONITOR["layer"].map({"conv1": 2, "conv2": 40}))
    assert answer(by_chance, COMMON[:0], "small") == (
        "30 of 64 neurons of layer conv1 of small hold a concept at the end of training (by chance 2); 1 at step 0, "
        "5 at step 30."
    )
    unknown = MONITOR.assign(null_interpretable=np.nan)
    assert answer(unknown, COMMON[:0]).startswith("41 of 64 neurons of layer conv2 hold")
    equal = monitored({"conv1": [3], "conv2": [3]}, [1.0], [3])
    assert answer(equal, COMMON[:0]) == "3 of 64 neurons of layer conv2 hold a concept (by chance 2)."


@pytest.mark.parametrize(
    ("neurons", "expected"),
    [
        ((9, 4, 1), "; most common: a (9 neurons)."),
        ((3, 3, 1), "; most common: a, b (3 neurons each)."),
        ((1, 1, 1), "(by chance 2)."),
        ((1,), "(by chance 2)."),
        ((2, 2, 2, 2), "(by chance 2)."),
        ((), "(by chance 2)."),
    ],
)
def test_the_most_common_word_is_one_that_several_neurons_hold(neurons: tuple[int, ...], expected: str) -> None:
    monitor = monitored({"conv1": [20]}, [1.0], [3])
    common = pd.DataFrame({"snapshot": 0, "layer": "conv1", "word": [*"abcd"[: len(neurons)]], "neurons": neurons})
    assert answer(monitor, common).endswith(expected)


def test_other_detectors_answer_for_the_same_layer() -> None:
    other = monitored({"conv1": [60, 60, 60], "conv2": [7, 8, 9]}, [1.0] * 3, [3] * 3)
    unknown = other.assign(null_interpretable=np.nan)
    assert other_answers(MONITOR, {"b": other}) == "The other detector: b 9 of 64 (by chance 2)."
    assert other_answers(MONITOR, {"b": other, "c": unknown}) == (
        "Other detectors: b 9 of 64 (by chance 2), c 9 of 64."
    )
    assert other_answers(MONITOR, {}) == ""
    assert other_answers(MONITOR, {"b": other[other["layer"] == "conv1"]}) == ""
    none = MONITOR.assign(interpretable=0)  # then of all layers together
    assert other_answers(none, {"b": other}) == "The other detector: b 69 of 128 (by chance 4)."


def test_the_first_third_of_the_snapshots_and_what_has_passed_by_then() -> None:
    steps = pd.DataFrame({"snapshot": range(6), "step": [0, 10, 20, 50, 80, 100]})
    third = first_third(steps)
    assert third is not None
    assert (third.snapshot, third.paces) == (1, (0.2, 0.1))  # the second of six, a tenth of the steps
    unknown = first_third(steps.assign(step=-1))
    assert unknown is not None
    assert unknown.paces == (0.2,)
    assert first_third(steps[:2]) is None


def test_concepts_grow_more_complex_where_the_difference_exceeds_chance() -> None:
    state, text = said()["Complexity"]
    assert state == "held"  # 0 of 3 against 46 of 71
    assert "0.0 % (0 of 3)" in text
    assert "64.8 % (46 of 71)" in text
    assert "By chance 4 neurons would hold a concept there, not 71." in text
    few = counted([(0, "conv1", "color", 1), (2, "conv1", "object", 1)])
    assert said(categories=few)["Complexity"][0] == "cannot be said"  # one neuron each is chance
    falling = CATEGORIES.assign(snapshot=2 - CATEGORIES["snapshot"])
    assert said(categories=falling)["Complexity"][0] == "did not hold"


@pytest.mark.parametrize("name", ["Complexity", "Depth", "Early"])
def test_nothing_is_said_where_chance_gives_most_of_the_neurons(name: str) -> None:
    half = MONITOR.assign(null_interpretable=17.75)  # 35.5 of 71 at the last snapshot
    assert said(half)[name][0] == "held"
    state, text = said(MONITOR.assign(null_interpretable=18))[name]
    assert state == "cannot be said"
    assert text.endswith(
        "By chance 36 neurons would hold a concept there, not 71: more than half, so nothing can be said."
    )
    assert "By chance" not in said(MONITOR.assign(null_interpretable=np.nan))[name][1]


@pytest.mark.parametrize(
    ("monitor", "categories", "reason"),
    [
        (MONITOR[MONITOR["snapshot"] == 2], CATEGORIES, "there is one snapshot only"),
        (MONITOR, CATEGORIES.assign(category="other"), "fewer than two snapshots"),
        (MONITOR, NONE, "fewer than two snapshots"),
    ],
)
def test_complexity_cannot_be_said(monitor: pd.DataFrame, categories: pd.DataFrame, reason: str) -> None:
    state, text = said(monitor, categories)["Complexity"]
    assert state == "cannot be said"
    assert reason in text


def test_shallow_layers_are_compared_with_deep_ones_at_the_last_snapshot() -> None:
    state, text = said()["Depth"]
    assert state == "held"
    assert "66.7 % (20 of 30)" in text
    assert "12.2 % (5 of 41)" in text
    swapped = CATEGORIES.assign(layer=CATEGORIES["layer"].map({"conv1": "conv2", "conv2": "conv1"}))
    assert said(categories=swapped)["Depth"][0] == "did not hold"
    one = MONITOR[MONITOR["layer"] == "conv1"]
    assert said(one, CATEGORIES[CATEGORIES["layer"] == "conv1"])["Depth"] == (
        "cannot be said",
        "Shallow layers hold simple concepts: there is one layer only.",
    )
    assert "fewer than two layers hold any" in said(categories=NONE)["Depth"][1]


def test_diversity_comes_early_where_it_outruns_an_even_pace() -> None:
    state, text = said()["Early"]
    assert state == "held"  # 80 % of the fall and 28 of 36 new concepts by the middle of three snapshots
    assert "is 1.200 at step 0, 0.800 at step 30 and 0.700 at step 60 (80.0 % of the fall by step 30)" in text
    assert "hold 4, 32 and 40 distinct concepts (77.8 % of the new ones)" in text
    assert "An even pace would give 50.0 % by snapshots." in text
    uneven = MONITOR.assign(step=MONITOR["snapshot"].map({0: 0, 1: 15, 2: 60}))
    assert "would give 50.0 % by snapshots and 25.0 % by steps." in said(uneven)["Early"][1]
    numbered = uneven.assign(label=[f"epoch_{step}" for step in uneven["step"]])
    assert "and 25.0 % by the numbers of the checkpoints." in said(numbered)["Early"][1]
    beyond = monitored({"conv1": [1, 5, 30]}, [1.2, 0.6, 0.7], [2, 30, 20])
    assert "(100.0 % of the fall by step 30)" in said(beyond)["Early"][1]
    assert "(100.0 % of the new ones)" in said(beyond)["Early"][1]
    turned = monitored({"conv1": [1, 5, 30]}, [1.2, 1.3, 0.7], [2, 1, 20])
    assert "(it rises at first)" in said(turned)["Early"][1]
    assert "(their number falls at first)" in said(turned)["Early"][1]
    assert said(turned)["Early"][0] == "did not hold"
    late = monitored({"conv1": [1, 5, 30]}, [1.2, 1.1, 0.7], [2, 16, 20])
    assert said(late)["Early"][0] == "did not hold"
    rising = monitored({"conv1": [1, 5, 30]}, [0.7, 0.8, 1.2], [2, 16, 20])
    assert "(it does not fall)" in said(rising)["Early"][1]
    assert said(rising)["Early"][0] == "did not hold"
    dead = monitored({"conv1": [0, 0, 0]}, [1.0, 1.0, 1.0], [0, 0, 0])
    assert said(dead)["Early"] == ("cannot be said", "Diversity comes early: no neuron holds a concept.")
    assert said(MONITOR[MONITOR["snapshot"] < 2])["Early"][0] == "cannot be said"


def test_pairs_of_snapshots_in_the_same_order() -> None:
    values = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    # The first two settings order all three pairs and agree in two; the third orders none.
    assert kept_order(values) == (2.0, 3.0)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 4, (5, 6)).astype(float)
    same = both = 0
    for a in range(5):
        for b in range(a + 1, 5):
            for i in range(6):
                for j in range(i + 1, 6):
                    first, second = np.sign(drawn[a, j] - drawn[a, i]), np.sign(drawn[b, j] - drawn[b, i])
                    both += int(first * second != 0)
                    same += int(first * second > 0)
    assert kept_order(drawn) == (same, both)


def test_ablations_keep_the_order_or_do_not() -> None:
    # The last snapshot has 12, 6 and 4 neurons above 0.1, 0.2 and 0.3, the one before it 9, 4 and 2, the first 5, 2 and
    # 1; a dead neuron counts nowhere. Earlier snapshots have curves at taus of their own.
    steps = {0: (3, 1, 1), 1: (5, 2, 2), 2: (6, 2, 4)}
    values = [
        (s, v) for s, counts in steps.items() for v, n in zip((0.15, 0.25, 0.35), counts, strict=True) for _ in range(n)
    ]
    best = pd.DataFrame([(s, "conv1", n, v) for n, (s, v) in enumerate([*values, (2, 0.0)])], columns=[*BEST])
    curves = pd.DataFrame(
        [
            *((2, "conv1", tau, n, null) for tau, n, null in ((-0.1, 12, 12), (0.1, 12, 11), (0.2, 6, 1), (0.3, 4, 0))),
            *((s, "conv1", 0.123 + s, 1, 0) for s in (0, 1)),
        ],
        columns=[*CURVES],
    )
    pd.testing.assert_frame_equal(
        count_above(best, curves[curves["snapshot"] == 2]).query("snapshot == 1")[["tau", "interpretable"]],
        pd.DataFrame({"tau": [-0.1, 0.1, 0.2, 0.3], "interpretable": [9, 9, 4, 2]}, index=range(4, 8)),
    )
    temperatures = pd.DataFrame(
        [(s, "conv1", t, d) for t, ds in ((0.1, (3, 2, 1)), (1.0, (6, 5, 4))) for s, d in enumerate(ds)],
        columns=[*TEMPERATURES],
    )
    state, text = order_observation(best, curves, temperatures)
    assert state == "held"
    assert "over 3 values of τ" in text  # at -0.1 chance leaves as many neurons
    assert "from 12 to 4 at the last snapshot" in text
    turned = temperatures.assign(d_anchor=[3, 2, 1, 4, 5, 6])
    state, text = order_observation(best, curves, turned)
    assert state == "did not hold"
    assert f"0.0{NBSP}% of the pairs keep their order" in text
    # Above 0.1, 0.2 and 0.3 now 8, 9, 9, then 5, 4, 3 and 4, 2, 1: two pairs against each other twice, three alike.
    falling = best.assign(snapshot=best["snapshot"].where(best["similarity"] < 0.3, 2 - best["snapshot"]))
    state, text = order_observation(falling, curves, temperatures)
    assert state == "did not hold"
    assert f"42.9{NBSP}% of the pairs of snapshots keep their order" in text
    assert order_observation(best[:0], curves[:0], temperatures[:0])[0] == "cannot be said"
    one = (each[each["snapshot"] == 2] for each in (best, curves, temperatures))
    assert order_observation(*one)[0] == "cannot be said"


def test_chance_is_two_standard_errors_of_the_pooled_share() -> None:
    # Pooled 1/2, 2 * sqrt(1/4 * (1/50 + 1/50)) = 0.2.
    assert difference((20, 50), (30, 50)) == ("cannot be said", f"; chance is 20.0{NBSP}points")
    assert difference((19, 50), (31, 50))[0] == "held"
    assert difference((31, 50), (19, 50))[0] == "did not hold"


def test_planted_neurons_are_said_with_chance() -> None:
    truth = pd.DataFrame(
        [("d", "planted top-1", 0.5, 0.02), ("d", "planted top-5", 0.9, 0.1), ("d", "detectors", 7.0, 1.0)],
        columns=["detector", "check", "value", "baseline"],
    )
    (finding,) = trust_findings(truth)
    assert finding.text.replace(NBSP, " ") == (
        "d names the concept of planted neurons first for 50.0 % (by chance 2.0 %), and among its first five for "
        "90.0 % (by chance 10.0 %)."
    )
    assert trust_findings(truth[2:]) == []
    words = pd.DataFrame(
        [
            ("d", "captions: labels with known words", 0.25, np.nan),
            ("e", "captions: labels with known words", 1, np.nan),
        ],
        columns=truth.columns,
    )
    (of_captions,) = trust_findings(pd.concat([truth, words]))
    assert of_captions.text.replace(NBSP, " ") == (
        f"{finding.text.replace(NBSP, ' ')} Its captions have the words of 25.0 % of these concepts."
    )
