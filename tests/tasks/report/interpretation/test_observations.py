"""The paper's observations: what holds, what does not, and what cannot be said, from tables by hand."""

import numpy as np
import pandas as pd

from tasks.report.formats import NBSP
from tasks.report.interpretation.observations import Observation, observations

NAN = float("nan")


def judged(**tables: pd.DataFrame) -> dict[str, Observation]:
    """Return the observations by name; tables that are not given are those of a clear case."""
    points = [("random", 0.1, 0.4), ("random", 0.5, 0.2), ("moderate", 0.1, 0.7), ("moderate", 0.5, 0.3)]
    base = {
        "over_repeats": pd.DataFrame(
            {"network": "net", "interpreter": "ice", "selector": s, "budget": b, "phi_0_mean": phi, "null_0_mean": 1.2}
            for s, b, phi in points
        ).assign(phi_0_std=0.01),
        "robustness": robust({"ice": (0.10, 0.12), "topics": (0.03, 0.05)}),
        "against_random": against(("ice", "moderate", 0.10, 0.01)),
        "with_budget": changes(("distance_0", -0.2, 0.01), ("accuracy", 0.1, 0.01)),
    }
    return {found.about: found for found in observations(**(base | tables))}


def robust(stds: dict[str, tuple[float, float]], spread: float = 0.02, over: float = 0.001) -> pd.DataFrame:
    """Return the robustness of random and moderate for each interpreter, from their deviations over budgets."""
    return pd.DataFrame(
        {
            "network": "net", "interpreter": name, "selector": selector, "mean_0": 0.3, "std_0": std, "null_0": 1.2,
            "mean_0_spread": spread if selector == "random" else NAN,
            "std_0_spread": over if selector == "random" else NAN,
            "n_budgets": 3, "n_draws": 5 if selector == "random" else 1,
        }
        for name, both in stds.items()
        for selector, std in zip(("random", "moderate"), both, strict=True)
    )  # fmt: skip


def against(*found: tuple[str, str, float, float]) -> pd.DataFrame:
    """Return differences to random."""
    return pd.DataFrame(found, columns=["interpreter", "selector", "difference", "error"])


def changes(*found: tuple[str, float, float]) -> pd.DataFrame:
    """Return changes of one selector from 10 % to 50 %."""
    table = pd.DataFrame(found, columns=["measure", "difference", "error"])
    return table.assign(interpreter="ice", selector="random", least=0.1, most=0.5)


def text(found: Observation) -> str:
    """Return an observation's sentence with plain spaces."""
    return found.finding.text.replace(NBSP, " ")


def test_clear_cases_hold() -> None:
    found = judged()
    assert {name: one.state for name, one in found.items()} == {
        "Small coresets": "held",
        "Random baseline": "held",
        "Larger budgets": "held",
        "Robust method": "held",
    }
    assert text(found["Small coresets"]).startswith("Held. Claim: coresets of at most half of the data")
    assert "in 2 of 2 cases" in text(found["Small coresets"])
    assert text(found["Small coresets"]).endswith("at the latest from 50 % on.")  # moderate: 0.7 at 10 % is above 0.6
    evidence = found["Small coresets"].evidence[0].replace(NBSP, " ")
    assert evidence == "ice: random from 10 % on (0.400 ± 0.010 rad), moderate from 50 % on (0.300 ± 0.010 rad)."
    assert "topics is the most robust one with every selector" in text(found["Robust method"])


def test_a_distance_within_its_spread_of_half_the_null_is_not_below_it() -> None:
    rows = pd.DataFrame(
        {"network": "net", "interpreter": "ice", "selector": "random", "budget": [0.5], "phi_0_mean": 0.59}
    )
    wide, narrow = (rows.assign(null_0_mean=1.2, phi_0_std=std) for std in (0.02, 0.005))
    assert judged(over_repeats=wide)["Small coresets"].state == "did not hold"
    assert judged(over_repeats=narrow)["Small coresets"].state == "held"
    assert judged(over_repeats=narrow.assign(budget=0.95))["Small coresets"].state == "did not hold"
    assert judged(over_repeats=narrow.assign(budget=1.0))["Small coresets"].state == "cannot be said"


def test_features_that_rebuild_nothing_are_left_out() -> None:
    rows = pd.DataFrame(
        {"network": "net", "interpreter": ["ice", "topics"], "selector": "random", "budget": 0.5, "null_0_mean": 1.2}
    ).assign(phi_0_mean=[1.1, 0.001], phi_0_std=0.01)
    found = judged(over_repeats=rows.assign(error_val_mean=[0.4, 1.0]))
    assert found["Small coresets"].state == "did not hold"  # of ice alone
    assert "in 0 of 1 cases" in text(found["Small coresets"])
    assert found["Small coresets"].evidence[-1] == "topics: left out, as its features rebuild nothing of the maps."
    assert found["Robust method"].state == "cannot be said"  # one interpreter is left
    alone = judged(over_repeats=rows[1:].assign(error_val_mean=1.0))["Small coresets"]
    assert text(alone) == "Cannot be said. The features rebuild nothing of the maps."
    worse = judged(over_repeats=rows.assign(error_val_mean=[0.4, 4.5]))  # rebuilt badly, but rebuilt
    assert "in 1 of 2 cases" in text(worse["Small coresets"])


def test_what_small_coresets_lack_is_named() -> None:
    rows = pd.DataFrame(
        {"network": "net", "interpreter": "ice", "selector": ["random", "moderate"], "budget": 0.5, "phi_0_std": NAN}
    )
    near = rows.assign(phi_0_mean=[NAN, 0.3], null_0_mean=NAN)  # one evaluated image a class: no null
    assert "No null distance is known at a budget below 100 %" in text(judged(over_repeats=near)["Small coresets"])
    none = rows.assign(phi_0_mean=NAN, null_0_mean=NAN)
    assert text(judged(over_repeats=none)["Small coresets"]).endswith("No distance is known at a budget below 100 %.")


def test_random_is_beaten_only_beyond_draws_and_classes() -> None:
    # five draws: random's mean is known to 0.02 / sqrt(5) = 0.00894; noise: 2 sqrt(0.00894² + 0.01²) = 0.0268
    for difference, state in ((-0.026, "held"), (-0.027, "did not hold"), (0.5, "held")):
        found = judged(against_random=against(("ice", "moderate", difference, 0.01)))
        assert found["Random baseline"].state == state
    both = against(("ice", "moderate", -0.2, 0.01), ("ice", "dgpruning", 0.1, 0.01))
    beaten = judged(against_random=both)["Random baseline"]
    assert beaten.state == "held in part"
    assert "this is so in 1 of 2 comparisons; random is nearer by more than noise in 1." in text(beaten)
    assert beaten.evidence == ("ice: random 0.300 ± 0.020 rad; next to it moderate −0.200 rad (noise 0.027), "
                              "dgpruning +0.100 rad (noise 0.027).",)  # fmt: skip


def test_a_single_draw_of_random_says_nothing() -> None:
    single = robust({"ice": (0.1, 0.1)}, spread=NAN)
    assert judged(robustness=single)["Random baseline"].state == "cannot be said"
    one_class = against(("ice", "moderate", -0.3, NAN))
    assert judged(against_random=one_class)["Random baseline"].state == "cannot be said"
    assert judged(against_random=pd.DataFrame())["Random baseline"].state == "cannot be said"


def test_changes_count_beyond_two_standard_errors_and_in_their_direction() -> None:
    for measure, difference, state in (
        ("distance_0", -0.03, "held"),
        ("distance_0", 0.03, "did not hold"),
        ("distance_0", -0.01, "did not hold"),
        ("accuracy", 0.03, "held"),
        ("accuracy_without", -0.03, "held"),
        ("accuracy_without", 0.03, "did not hold"),
    ):
        assert judged(with_budget=changes((measure, difference, 0.01)))["Larger budgets"].state == state
    found = judged(with_budget=changes(("distance_0", -0.2, 0.01), ("accuracy", 0.01, 0.01)))["Larger budgets"]
    assert found.state == "held in part"
    assert "the distance falls in 1 of 1 cases and the accuracy rises (without a class's units: falls) in 0 of 1." in (
        text(found)
    )
    assert found.evidence[0].replace(NBSP, " ") == ("ice, 10 % to 50 %: random −0.200 ± 0.010 rad, +1.0 ± 1.0 points.")
    assert judged(with_budget=pd.DataFrame())["Larger budgets"].state == "cannot be said"
    assert judged(with_budget=changes(("accuracy", 0.1, NAN)))["Larger budgets"].state == "cannot be said"


def test_the_robust_method_must_be_the_same_for_every_selector() -> None:
    mixed = judged(robustness=robust({"ice": (0.10, 0.01), "topics": (0.03, 0.05)}))["Robust method"]
    assert mixed.state == "cannot be said"
    assert "depends on the selector" in text(mixed)
    alone = judged(robustness=robust({"ice": (0.1, 0.1)}))["Robust method"]
    assert alone.state == "cannot be said"
    once = robust({"ice": (0.0, 0.0), "topics": (0.0, 0.0)}).assign(n_budgets=1)
    assert judged(robustness=once)["Robust method"].state == "cannot be said"
    steady = judged(robustness=robust({"ice": (0.0, 0.0), "topics": (0.03, 0.05)}))["Robust method"]
    assert "ice is the most robust" in text(steady)  # a deviation of 0 over three budgets is a deviation
    assert np.isfinite(float(steady.evidence[0].split()[1]))


def test_the_most_robust_method_leads_by_more_than_its_draws_differ() -> None:
    stds = {"ice": (0.10, 0.12), "topics": (0.04, 0.05)}  # random: a gap of 0.06, noise 2 sqrt(2) over / sqrt(5)
    for over, state in ((0.047, "held"), (0.048, "cannot be said")):
        assert judged(robustness=robust(stds, over=over))["Robust method"].state == state
    noisy = text(judged(robustness=robust(stds, over=0.048))["Robust method"])
    assert "topics has the least with every selector, but not by more than twice its error" in noisy
    once = judged(robustness=robust(stds, over=NAN))["Robust method"]
    assert once.state == "cannot be said"
    assert "no selector has two draws" in text(once)


def test_tables_without_rows_say_nothing() -> None:
    frames = judged(over_repeats=pd.DataFrame(columns=["network", "interpreter", "selector", "budget", "phi_0_mean"]))
    assert frames["Small coresets"].state == "cannot be said"
