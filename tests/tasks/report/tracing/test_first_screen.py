"""The first screen: which query and score it shows, its sentence, and what stands in place of training images."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.pages import RunFacts
from tasks.report.tracing.content import tracing_content
from tasks.report.tracing.first import MAX_SHOWN, RIDGES, First
from tasks.report.tracing.results import Query, QueryLayer, TracingResults
from tasks.report.tracing.scores import ALL_CONSTANT
from tests.tasks.report.site_pages import site_of, text_of


def first_of(results: TracingResults, shown: str = "show") -> First:
    """The first screen of results."""
    found = tracing_content(results, shown).first
    assert found is not None
    return found


def scored(query: Query, score: str) -> Query:
    """A query with a score of the whole network after its layers."""
    last = query.layers[-1]
    classes = pd.DataFrame({"class_name": ["zero", "one", "two"], "sum": [-3.0, 1.0, 5.0], "share": [-0.3, 0.1, 0.5]})
    panel = QueryLayer(score, last.positive, last.negative, None, float("nan"), float("nan"), classes, score)
    return replace(query, layers=(*query.layers, panel))


def test_an_answer_that_nothing_taught_shows_what_worked_against_it(tracing: TracingResults) -> None:
    query = scored(tracing.queries[1], "counterfactual")
    last = query.layers[-1]
    against = replace(query, layers=(*query.layers[:-1], replace(last, positive=last.positive[:0])))
    found = first_of(replace(tracing, queries=(against,)))
    assert [title for title, _ in found.ends] == ["Worked against it most"]


def test_the_first_correct_query_is_shown_by_its_last_score(tracing: TracingResults) -> None:
    wrong, right = tracing.queries[2], tracing.queries[1]
    assert (wrong.predicted, wrong.true_class) == ("zero", "two")
    found = first_of(replace(tracing, queries=(wrong, scored(right, "counterfactual"))))
    assert found.card == "query-2"
    assert found.sentence.replace("\u00a0", " ") == (
        "small, seed 0 answers one (90.0 %): training examples of class two taught it that most, and those of class "
        "zero worked against it most."
    )
    assert found.note.endswith("By the score counterfactual")
    assert [title for title, _ in found.ends] == ["Taught it most", "Worked against it most"]
    ids = right.layers[-1].positive["sample_id"].tolist()[:MAX_SHOWN]
    assert [example.details for example in found.ends[0][1]] == [(f"sample {i}",) for i in ids]
    assert found.figure is None


@pytest.mark.parametrize(
    ("value", "note", "source"),
    [
        (0.29, "", "By layer fc"),
        (0.3, "", "By the score counterfactual"),
        (np.nan, "", "By layer fc"),
        (np.nan, ALL_CONSTANT, "By the score counterfactual"),
    ],
)
def test_a_score_that_does_not_predict_retrainings_is_not_taken(
    tracing: TracingResults, value: float, note: str, source: str
) -> None:
    what = {"network": "small", "seed": 0, "measure": "validity", "layer": "", "score": "counterfactual"}
    row = {**what, "value": value, "note": note}
    queries = tuple(scored(query, "counterfactual") for query in tracing.queries)
    assert first_of(replace(tracing, queries=queries, evaluation=pd.DataFrame([row]))).note.endswith(source)


@pytest.mark.parametrize("shown", ["ids", "none"])
def test_ridges_stand_in_place_of_training_images(facts: RunFacts, tracing: TracingResults, shown: str) -> None:
    found = first_of(tracing, shown)
    assert found.ends == ()
    assert found.figure is not None
    assert found.figure.id == RIDGES
    assert [view.label for view in found.figure.views] == [tracing.queries[0].layers[-1].layer]


def test_a_wrong_answer_names_the_true_class(tracing: TracingResults) -> None:
    found = first_of(replace(tracing, queries=tracing.queries[2:]))
    assert "answers zero (90.0" in found.sentence
    assert "where the label is two: training examples of class" in found.sentence


def test_without_queries_the_page_has_its_title_alone(facts: RunFacts, tracing: TracingResults) -> None:
    assert tracing_content(replace(tracing, queries=()), "show").first is None
    assert "Who taught the network that?" in text_of(site_of(facts, replace(tracing, queries=())), "tracing.html")


def test_bars_by_class_take_the_place_of_images_and_keep_their_sign(facts: RunFacts, tracing: TracingResults) -> None:
    site = site_of(replace(facts, training_images="none"), tracing)
    bars = re.findall(
        r'<li( class="against")? style="--share: ([\d.]+)">.*?<span class="amount">(.*?)</span>', _of(site)
    )
    assert bars
    for against, share, amount in bars:
        assert bool(against) == amount.startswith("−")
        assert 0 <= float(share) <= 1
    assert max(float(share) for _, share, _ in bars) == 1  # of the largest, whatever its sign


def _of(site: dict[str, bytes]) -> str:
    """Return the bars of the overview."""
    return site["index.html"].decode().partition('<ol class="bars"')[2].partition("</ol>")[0]
