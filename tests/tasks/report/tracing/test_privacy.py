"""What of the training set may be in the site's files, searched for in all of their bytes."""

import base64
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.figures.overlay import Image, thumbnail
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import RunFacts
from tasks.report.tracing.privacy import by_class, redacted
from tasks.report.tracing.queries import EXAMPLE_PIXELS
from tasks.report.tracing.results import TracingResults
from tests.tasks.report.site_pages import site_of

EXAMPLE, QUERY = 987654321, 876543219


def planted(page: TracingResults) -> tuple[TracingResults, dict[str, Image]]:
    """Plant an influential example and a query of the training split, each with an image of its own."""
    rng = np.random.default_rng(9)
    images = {name: rng.integers(0, 256, (80, 80, 3), dtype=np.uint8) for name in ("example", "query")}
    query = replace(page.queries[0], sample_id=QUERY, split="train", image=images["query"])
    layers = []
    for layer in query.layers:
        positive = layer.positive.copy()
        positive.loc[0, "sample_id"] = EXAMPLE
        layers.append(replace(layer, positive=positive))
    # Further columns could carry ids too.
    tables = {name: getattr(page, name).assign(first_sample=EXAMPLE) for name in ("networks", "layers", "evaluation")}
    shares = page.shares.assign(sample_id=EXAMPLE)
    queries = (replace(query, layers=tuple(layers)), *page.queries[1:])
    return replace(page, queries=queries, shares=shares, images={("", EXAMPLE): images["example"]}, **tables), images


def traces_of(image: Image) -> Iterator[bytes]:
    """Yield how an image could stand in a file: as the thumbnails made here, and raw in base64."""
    for longest in (EXAMPLE_PIXELS, 96):
        made = thumbnail(image, longest)
        yield made.digest.encode()
        yield made.uri.removeprefix("data:image/png;base64,").encode()[64:]
        yield base64.b64decode(made.uri.removeprefix("data:image/png;base64,"))[64:]
    yield base64.b64encode(image.tobytes())[:64]
    yield image.tobytes()[:64]


def found(site: dict[str, bytes], needles: Iterator[bytes]) -> bool:
    """Say whether any needle is in any file."""
    return any(needle in content for needle in needles for content in site.values())


def ids_in(site: dict[str, bytes]) -> set[int]:
    """Return the planted ids that are in any file, with or without commas at the thousands."""
    forms = {number: (str(number).encode(), f"{number:,}".encode()) for number in (EXAMPLE, QUERY)}
    return {n for n, shapes in forms.items() if any(shape in data for shape in shapes for data in site.values())}


@pytest.mark.parametrize(
    ("setting", "ids", "images"),
    [("show", {EXAMPLE, QUERY}, True), ("ids", {EXAMPLE, QUERY}, False), ("none", set(), False), ("odd", set(), False)],
)
def test_the_bytes_of_the_site_hold_only_what_is_allowed(
    facts: RunFacts, page: InterpretationResults, tracing: TracingResults, setting: str, ids: set[int], images: bool
) -> None:
    mine, pictures = planted(tracing)
    site = site_of(replace(facts, training_images=setting), page, mine)
    assert ids_in(site) == ids
    for picture in pictures.values():
        assert found(site, traces_of(picture)) == images
    assert found(site, traces_of(np.asarray(mine.queries[1].image)))  # a validation image may always be shown


def test_without_ids_other_training_ids_are_gone_too(facts: RunFacts, tracing: TracingResults) -> None:
    shifted = []
    for query in tracing.queries:
        layers = tuple(
            replace(
                layer,
                positive=layer.positive.assign(sample_id=layer.positive["sample_id"] + 555_000_000),
                negative=layer.negative.assign(sample_id=layer.negative["sample_id"] + 555_000_000),
            )
            for layer in query.layers
        )
        shifted.append(replace(query, layers=layers))
    site = site_of(replace(facts, training_images="none"), replace(tracing, queries=tuple(shifted)))
    assert not any(b"555000" in content for path, content in site.items() if not path.startswith("assets/"))
    assert "data/tracing_examples.csv" not in site
    assert "data/tracing_classes.csv" in site


def test_examples_become_sums_by_class(tracing: TracingResults) -> None:
    layer = replace(
        tracing.queries[0].layers[0],
        positive=pd.DataFrame({"sample_id": [1, 2], "class_name": ["a", "b"], "sum": [3.0, 2.0], "share": [0.3, 0.2]}),
        negative=pd.DataFrame({"sample_id": [3], "class_name": ["a"], "sum": [-2.5], "share": [-0.25]}),
    )
    expected = pd.DataFrame(
        {"class_name": ["b", "a"], "sum": [2.0, 0.5], "share": [0.2, 0.05], "examples": [1, 2]},
    )
    pd.testing.assert_frame_equal(by_class(layer), expected)
    query = replace(tracing.queries[0], layers=(layer,))
    hidden = redacted(replace(tracing, queries=(query,)), "none")
    assert hidden.images == {}
    assert len(hidden.queries[0].layers[0].positive) == len(hidden.queries[0].layers[0].negative) == 0
    assert layer.positive["sample_id"].tolist() == [1, 2]  # the input is left alone


def test_known_class_sums_are_kept_and_no_examples_give_none(tracing: TracingResults) -> None:
    classes = pd.DataFrame({"class_name": ["a"], "sum": [7.0], "share": [0.7]})
    layer = replace(tracing.queries[0].layers[0], classes=classes)
    query = replace(tracing.queries[0], layers=(layer,))
    kept = redacted(replace(tracing, queries=(query,)), "none").queries[0].layers[0].classes
    assert kept is classes
    assert len(by_class(replace(layer, positive=layer.positive[:0], negative=layer.negative[:0]))) == 0


def test_held_out_splits_can_be_named(tracing: TracingResults) -> None:
    query = replace(tracing.queries[0], split="val")
    other = replace(tracing, queries=(replace(query, source="second"),), held_out=(("first", "val"),))
    assert redacted(other, "none").queries[0].sample_id == -1
    page = replace(tracing, queries=(query,), held_out=(("", "unseen"),))
    assert redacted(page, "ids").queries[0].image is None
    assert redacted(page, "ids").queries[0].sample_id == query.sample_id
    assert redacted(page, "none").queries[0].sample_id == -1
    assert redacted(page, "show") is page
