"""The tracing page as bytes: its numbers, its caps, its files."""

import io
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.pages import RunFacts
from tasks.report.tracing.queries import MAX_EXAMPLES, MAX_LAYERS, MAX_QUERIES, MAX_THUMBNAIL_BYTES, example_thumbnails
from tasks.report.tracing.results import TracingResults
from tests.tasks.report import site_pages
from tests.tasks.report.site_pages import site_of

Traces = Callable[..., TracingResults]

MAX_PAGE_BYTES = 16_000_000


def text_of(site: dict[str, bytes]) -> str:
    """Return the words of the page, one space between."""
    return site_pages.text_of(site, "tracing.html")


def views_of(site: dict[str, bytes], figure: str) -> dict[str, list[dict[str, list[float]]]]:
    """Return what a figure draws, by the label of its choice."""
    return site_pages.views_of(site, "tracing.html", figure)


def test_numbers_of_the_tables_are_on_the_page(facts: RunFacts, tracing: TracingResults) -> None:
    text = text_of(site_of(facts, tracing))
    for expected in (
        "small 0 small-cnn final 97.5 % 0.0812 1,200 3 2.3 GB 1.25 s 1 min 15 s",
        "conv1 Conv2d 12,345 80.0 % 25.0 % −5.0 % 3.1e−07 4.0e−08 20.0 % 15.0 % 90.0 %",
        "mislabel detection, AUC small 0 – 0.910 0.953 summed loss 143 –",
        "LDS small 0 – 0.310 ± 0.020 0.620 retraining ceiling 32 –",
        "randomisation check small 0 conv1 0.030 – – 8 near 0 is right",
    ):
        assert expected in text


def test_examples_stand_with_sign_share_and_class(facts: RunFacts, tracing: TracingResults) -> None:
    site = site_of(facts, tracing)
    text = text_of(site)
    query = tracing.queries[2]
    assert "Predicted zero (wrong) with probability 90.0 % by small, seed 0; split val." in text
    first, taken = query.layers[1].positive.iloc[0], query.layers[1].negative.iloc[0]
    assert f"two +{100 * first['share']:.2f} % γ +{first['sum']:.3f}" in text
    assert f"−{-100 * taken['share']:.2f} % γ −{-taken['sum']:.3f}" in text
    assert "sample 201" in text
    assert "✓ zero , as predicted" in text
    # An example is marked exactly where its class is the predicted one.
    listed = [(q.predicted, t) for q in tracing.queries for x in q.layers for t in (x.positive, x.negative)]
    agreeing = sum(int((table["class_name"] == predicted).sum()) for predicted, table in listed)
    cards = site["tracing.html"].partition(b'<h2 id="queries">')[2]  # the first screen shows some of them too
    assert cards.count(b'<li class="agrees">') == agreeing > 0


def test_ridges_in_the_page_are_those_of_the_tables(facts: RunFacts, tracing: TracingResults) -> None:
    views = views_of(site_of(facts, tracing), "ridges-1")
    assert list(views) == ["conv1", "conv2", "fc"]
    ridges = tracing.queries[0].layers[2].ridges
    assert ridges is not None
    x, height = ridges.curve(1)
    outline = views["fc"][1]
    np.testing.assert_allclose(outline["x"], [x[0], *x, x[-1]], atol=1e-4)
    np.testing.assert_allclose(outline["y"], [1, *(1 + height), 1], atol=1e-4)


def test_layers_without_ridges_or_examples_say_so(facts: RunFacts, tracing: TracingResults) -> None:
    query = tracing.queries[0]
    bare = replace(query.layers[0], ridges=None, positive=query.layers[0].positive[:0])
    bare = replace(bare, negative=bare.negative[:0], init_share=float("nan"))
    page = replace(tracing, queries=(replace(query, layers=(bare,), image=None), replace(query, layers=())))
    text = text_of(site_of(facts, page))
    assert "No examples are known for this layer." in text
    assert "No layer was traced." in text
    assert "There is no ridge plot of layer conv1." in text
    assert "initial weights –" in text


def test_empty_tables_and_no_queries(facts: RunFacts, tracing: TracingResults) -> None:
    names = ("networks", "layers", "shares", "evaluation")
    empty = replace(tracing, **{name: getattr(tracing, name)[:0] for name in names}, queries=(), images={})
    text = text_of(site_of(facts, empty))
    for expected in ("No network was traced.", "No queries were explained.", "The config asks for no evaluation."):
        assert expected in text


def test_unknown_numbers_are_dashes_and_unknown_decay_says_so(facts: RunFacts, tracing: TracingResults) -> None:
    unknown = dict.fromkeys(("init_share", "decay_share", "examples_share", "agreement_1", "cardinality"), np.nan)
    page = replace(tracing, layers=tracing.layers.assign(residual_max=np.nan, agreement_10=np.nan, **unknown))
    page = replace(page, shares=page.shares[:0], networks=page.networks.assign(accuracy=np.nan, archive_bytes=np.nan))
    site = site_of(facts, page)
    assert "conv1 Conv2d 12,345 – – unknown – 4.0e−08 – – –" in text_of(site)
    assert not re.search(r"\bnan\b", site["tracing.html"].decode(), re.IGNORECASE)


def test_without_ids_classes_stand_in_place_of_examples(facts: RunFacts, tracing: TracingResults) -> None:
    site = site_of(replace(facts, training_images="none"), tracing)
    text = text_of(site)
    assert "Contribution of each class to layer fc, summed over the top 8 examples only" in text
    assert "Added most" not in text
    read = pd.read_csv(io.BytesIO(site["data/tracing_classes.csv"]))
    first = tracing.queries[0].layers[0]
    both = pd.concat([first.positive, first.negative])
    rows = read[(read["query"] == 0) & (read["layer"] == "conv1")].set_index("class_name")
    for name, of_class in both.groupby("class_name"):
        np.testing.assert_allclose(rows["sum"][str(name)], of_class["sum"].sum())
        assert rows["examples"][str(name)] == len(of_class)


def test_ids_stand_without_images(facts: RunFacts, tracing: TracingResults) -> None:
    site = site_of(replace(facts, training_images="ids"), tracing)
    assert "sample 201" in text_of(site)
    assert site["tracing.html"].count(b"<symbol") == 3  # the queries, which are validation images


def test_csv_files_hold_the_tables(facts: RunFacts, tracing: TracingResults) -> None:
    site = site_of(facts, tracing)
    for name in ("networks", "layers", "shares"):
        read = pd.read_csv(io.BytesIO(site[f"data/tracing_{name}.csv"]))
        pd.testing.assert_frame_equal(read, getattr(tracing, name), check_like=True)
    examples = pd.read_csv(io.BytesIO(site["data/tracing_examples.csv"]))
    assert len(examples) == 3 * 3 * 2 * 4
    rows = examples[(examples["query"] == 1) & (examples["layer"] == "fc") & (examples["end"] == "negative")]
    expected = tracing.queries[1].layers[2].negative
    for name in ("sample_id", "class_name", "sum", "share", "cosine_sum"):
        assert rows[name].tolist() == expected[name].tolist()
    assert rows["rank"].tolist() == [1, 2, 3, 4]
    queries = pd.read_csv(io.BytesIO(site["data/tracing_queries.csv"]))
    assert queries["sample_id"].tolist() == [7000, 7001, 7002]


def test_a_table_too_long_for_the_site_is_left_out(
    facts: RunFacts, tracing: TracingResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.report.tracing.downloads.MAX_CSV_ROWS", 20)
    site = site_of(facts, tracing)
    assert "data/tracing_shares.csv" not in site
    assert f"The {len(tracing.shares)} rows of the table of shares are too many for this site." in text_of(site)


def test_thumbnails_are_made_by_rank_until_the_page_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = {("d", i): rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(6)}
    monkeypatch.setattr("tasks.report.tracing.queries.MAX_THUMBNAIL_BYTES", 40_000)  # of about 16,500 each
    made, n_left = example_thumbnails([("d", i) for i in (5, 99, 5, 2, 0, 1, 0)], images)
    assert (list(made), n_left) == ([("d", 5), ("d", 2)], 2)


@pytest.mark.slow
def test_the_largest_page_is_capped_says_so_and_stays_small(facts: RunFacts, build_tracing: Traces) -> None:
    names = tuple(f"class {i}" for i in range(40))
    layers = tuple(f"layer{i}" for i in range(MAX_LAYERS + 4))
    page = build_tracing(names, layers, MAX_QUERIES + 6, n_examples=MAX_EXAMPLES + 5, n_epochs=150, size=96)
    site = site_of(facts, page)
    assert MAX_THUMBNAIL_BYTES < len(site["tracing.html"]) < MAX_PAGE_BYTES
    text = text_of(site)
    assert "24 of 30 queries, evenly spread." in text
    assert "training examples are left out to keep the page small; their ids are named." in text
    assert text.count("8 of 12 layers, evenly spread.") == MAX_QUERIES + 1  # each query, and the classes over training
    assert "The 9 largest of 40 classes by themselves." in text
    assert "Epochs are summed in runs of 2" in text
    assert site["tracing.html"].count(b'<article class="card') == MAX_QUERIES
    cards = site["tracing.html"].decode().partition('<h2 id="queries">')[2]
    strips = re.findall(r'<ol class="strip(?: worded)?"( start="7")?>(.*?)</ol>', cards, re.DOTALL)
    assert len(strips) == MAX_QUERIES * MAX_LAYERS * 2 * 2  # at either end six, and folded those after them
    assert {(start, strip.count("<li")) for start, strip in strips} == {("", 6), (' start="7"', MAX_EXAMPLES - 6)}


def test_a_query_has_one_number_in_page_and_tables(facts: RunFacts, tracing: TracingResults) -> None:
    first, second, third = tracing.queries
    other = replace(third, network="large", number=4)
    results = replace(tracing, queries=(replace(first, number=4), replace(second, number=11), other))
    site = site_of(facts, results)
    found = re.findall(r"<h3[^>]*>Query (\d+): ", site["tracing.html"].decode())
    assert found == ["4", "11", "4"]
    queries = pd.read_csv(io.BytesIO(site["data/tracing_queries.csv"]))
    assert queries[["query", "network", "seed", "sample_id"]].to_numpy().tolist() == [
        *[[4, "small", 0, 7000], [11, "small", 0, 7001], [4, "large", 0, 7002]]
    ]
    examples = pd.read_csv(io.BytesIO(site["data/tracing_examples.csv"]))
    assert examples[["query", "network", "seed"]].drop_duplicates().to_numpy().tolist() == [
        *[[4, "small", 0], [11, "small", 0], [4, "large", 0]]
    ]


def test_costs_stand_next_to_those_of_the_paper(facts: RunFacts, tracing: TracingResults) -> None:
    """72 s an epoch and 453 % more make 398 s; the network's costs are as its stages logged them."""
    costs = tracing.networks.assign(kind="replay", plain_epoch_seconds=20.0, recorded_epoch_seconds=20.5)
    costs = costs.assign(weight_bytes=8.4e6, explained=100)
    text = text_of(site_of(facts, replace(tracing, networks=costs)))
    assert "paper: CIFAR-10, VGG-16 every update 129 MB 11,685 1 min 12 s 6 min 38 s 453.0 % 1.5 TB 10 1" in text
    assert "paper: ogbg-ppa, graph network every update 7.1 MB 278,500 4 min 24 s 6 min 47 s 54.0 % 1.9 TB 66 1" in text
    assert "small, seed 0 replay 8.4 MB 1,200 20.0 s 20.5 s 2.5 % 2.35 GB 1.2 100" in text
    unknown = text_of(site_of(facts, tracing))
    assert "small, seed 0 – – 1,200 – – – 2.35 GB 1.2 –" in unknown


def test_layers_are_called_by_their_titles_on_the_page_and_by_their_names_in_the_files(
    facts: RunFacts, tracing: TracingResults
) -> None:
    layers = list(dict.fromkeys(tracing.layers["layer"]))
    titles = {("small", layer): f"{layer} · Linear 32 → {10 + i}" for i, layer in enumerate(layers)}
    site = site_of(facts, replace(tracing, titles=titles))
    text = text_of(site)
    for title in titles.values():
        assert text.count(title) > 2  # in a query, in a finding or a figure, and in the table of layers
    names = set(pd.read_csv(io.BytesIO(site["data/tracing_layers.csv"]), dtype={"layer": str})["layer"])
    assert names == set(layers)
