"""Sentences on scores: no stronger than the numbers, and with the cures of a rough training."""

import pandas as pd

from tasks.report.tracing.scores import ALL_CONSTANT, VALIDITY, score_sentences, validity_sentences

LDS = "LDS"


def table(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Rows of measure, score and value, without a note."""
    return pd.DataFrame(rows, columns=["measure", "score", "value"]).assign(note="")


def test_scores_are_compared_with_the_best_baseline() -> None:
    rows = table(
        *((LDS, "gamma", 0.2), (LDS, "gamma", 0.3), (LDS, "counterfactual", 0.61)),
        *((LDS, "same class", 0.5), (LDS, "KNN-Shapley in pixels", 0.52), ("randomisation", "gamma", 0.1)),
    )
    first, second = score_sentences(rows)
    assert first == (
        "LDS: counterfactual (0.610) beats every baseline; gamma (0.300) does not. The best baseline is "
        "KNN-Shapley in pixels (0.520)."
    )
    assert second == (
        "counterfactual shows what the same training would answer without an example. gamma shows what shaped the "
        "representation of a layer. The summed training loss marks labels that are probably wrong."
    )


def test_equal_values_do_not_beat_a_baseline() -> None:
    first, *_ = score_sentences(table((LDS, "gamma", 0.5), (LDS, "logit", 0.4), (LDS, "same class", 0.5)))
    assert first == (
        "LDS: gamma (0.500) and logit (0.400) do not beat the baselines. The best baseline is same class (0.500)."
    )


def test_a_rough_training_is_named_with_its_cures() -> None:
    (valid,) = validity_sentences(table(("validity", "counterfactual", 0.3)))
    assert valid.endswith("correlate by 0.300: the derivatives describe this training.")
    rough = table(("validity", "counterfactual", 0.29), (LDS, "counterfactual", 0.0), (LDS, "same class", 0.5))
    (sentence,) = validity_sentences(rough)
    assert "correlate by 0.290 only: this training is too rough for the counterfactual score. A smaller" in sentence
    assert "counterfactual shows" not in " ".join(score_sentences(rough))
    (unknown,) = validity_sentences(table(("validity", "counterfactual", float("nan"))))
    assert "cannot be compared: this training is too rough" in unknown


def test_a_correlation_that_no_query_has_says_nothing_about_the_training() -> None:
    equal = table((VALIDITY, "counterfactual", float("nan")), (LDS, "gamma", float("nan")), (LDS, "random", 0.1))
    (sentence,) = validity_sentences(equal.assign(note=ALL_CONSTANT))
    assert sentence == (
        "Predicted and measured changes without a few examples cannot be compared, since one of them is the same in "
        "every retraining: leave out more examples (`tracing.counterfactual.left_out`)."
    )
    assert next(iter(score_sentences(equal))) == "LDS: the best baseline is random (0.100)."


def test_without_retrainings_there_is_nothing_to_say() -> None:
    assert list(score_sentences(table(("mislabel AUC", "gamma", 0.9), ("mislabel AUC", "random", 0.5)))) == []
    assert list(score_sentences(pd.DataFrame({"measure": [LDS], "value": [0.1]}))) == []
