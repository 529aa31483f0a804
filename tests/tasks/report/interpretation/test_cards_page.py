"""The first screen of question 1's page: what its views, features and texts are, and what it leaves out."""

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.figures.overlay import thumbnail
from tasks.report.interpretation import cards as cards_module
from tasks.report.interpretation.card_results import CardResults
from tasks.report.interpretation.cards import Cards, cards_of
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import RunFacts
from tests.tasks.report.interpretation.card_tables import CLASSES, invented_cards
from tests.tasks.report.site_pages import site_of, text_of

Data = dict[str, Any]  # Any: JSON


def laid_out(results: CardResults) -> Cards:
    """Return the cards of results that have some."""
    cards = cards_of(results)
    assert cards is not None
    return cards


def data_of(cards: Cards) -> Data:
    """Return the data as the script reads it."""
    text = cards.scripts["assets/cards-data.js"].decode()
    assert text.startswith("const cardsData = ")
    found: Data = json.loads(text.removeprefix("const cardsData = ").removesuffix(";\n"))
    assert len({tuple(image) for image in found["images"]}) == len(found["images"])
    for feature in found["features"]:
        feature[7] = [found["images"][index] for index in feature[7]]
    return found


def view_of(data: Data, *key: str) -> Data:
    """Return the view of a class and a coreset."""
    (view,) = [view for view in data["views"] if view["key"] == ["small", *key]]
    found: Data = view
    return found


def test_there_is_a_view_for_each_class_and_coreset_in_the_order_of_the_config() -> None:
    data = data_of(laid_out(invented_cards()))
    assert data["names"] == ["network", "class", "interpreter", "selector", "budget"]
    classes = [f"{i} {name}" for i, name in enumerate(CLASSES)]
    sets = [("ice", "random", "10\u00a0%"), ("ice", "moderate", "10\u00a0%")]
    expected = [["small", name, *one] for one in (*sets, ("vebi", "random", "10\u00a0%")) for name in classes]
    assert [view["key"] for view in data["views"]] == expected


def test_each_feature_of_all_data_stands_next_to_its_partner() -> None:
    data = data_of(laid_out(invented_cards()))
    view = view_of(data, "0 zero", "ice", "random", "10\u00a0%")
    found = [
        (data["features"][mine][0], data["features"][other][0], said, near, without)
        for mine, other, said, near, without in view["pairs"]
    ]
    assert found == [  # by falling importance; 31 degrees are more than 30
        ("component 2", "component 2", "30°", True, ""),
        ("component 0", "component 1", "12°", True, ""),
        ("component 1", "component 0", "31°", False, ""),
    ]
    assert view["only"] == []
    assert view["set"] == "random 10\u00a0%"
    own = [data["features"][mine] for mine, *_ in view["pairs"]]
    assert [feature[2:6] for feature in own] == [
        [0.5, "50.0\u00a0%", "of the logit", "active on 75\u00a0% of images"],
        [0.25, "25.0\u00a0%", "of the logit", "active on 100\u00a0% of images"],
        [0.0, "−12.5\u00a0%", "of the logit", "active on 50\u00a0% of images"],
    ]


def test_units_are_found_or_not_and_those_of_the_coreset_alone_are_listed() -> None:
    data = data_of(laid_out(invented_cards()))
    view = view_of(data, "0 zero", "vebi", "random", "10\u00a0%")
    assert [(data["features"][mine][:2], other >= 0, said, near) for mine, other, said, near, _ in view["pairs"]] == [
        (["ReLU 10 of 12, channel 3", "ReLU 10 of 12"], True, "the same unit", True),
        (["ReLU 2 of 12, channel 1", "ReLU 2 of 12"], False, "not found", False),
    ]
    assert [data["features"][index][0] for index in view["only"]] == ["ReLU 10 of 12, channel 5"]


def test_the_line_says_how_many_features_the_coreset_finds() -> None:
    cards = laid_out(invented_cards())
    data = data_of(cards)
    plain = {tuple(view["key"][1:]): view["line"].replace("\u00a0", " ") for view in data["views"]}
    assert plain["0 zero", "ice", "random", "10\u00a0%"] == (
        "To recognise “zero”, small relies on 2 of the 3 features that ice found: each has at least 1 % of the score "
        "for this class. A selection of 10 % of the training images (random) shows 2 of these."  # the third: negative
    )
    assert plain["0 zero", "ice", "moderate", "10\u00a0%"].endswith("images (moderate) shows 0 of these.")
    assert plain["0 zero", "vebi", "random", "10\u00a0%"] == (
        "To recognise “zero”, small relies on 2 of the 2 units that vebi found: each has at least 1 % of the weights "
        "for this class. A selection of 10 % of the training images (random) shows 1 of these. Without the coreset's "
        "units, accuracy on the class goes from 90.0 % to 40.0 %."
    )
    assert cards.line == data["views"][0]["line"]


def first_line(**columns: Any) -> str:  # Any: a value of a column
    """Return the line of the first view where the columns of all features have these values."""
    results = invented_cards()
    cards = laid_out(replace(results, features=results.features.assign(**columns)))
    return cards.line.replace("\u00a0", " ")


def test_the_line_counts_only_active_features_that_carry_the_class() -> None:
    of, share = "To recognise “zero”, small", "1 % of the score for this class."
    nothing = f"{of} relies on none of the 3 features that ice found: each has less than {share}"
    assert first_line(importance=0.0) == nothing
    assert first_line(importance=0.5, activity=0.0) == nothing
    assert first_line(importance=0.00999) == nothing
    found = "A selection of 10 % of the training images (random) shows 2 of these."
    relies = f"{of} relies on 3 of the 3 features that ice found: each has at least {share}"
    assert first_line(importance=0.01) == f"{relies} {found}"
    unknown = f"{of} may rely on the 3 features that ice found: how much each counts is not known."
    assert first_line(importance=np.nan) == f"{unknown} {found}"
    results = invented_cards()
    one = (results.features["feature"] == 2) * 0.5  # 29.6 degrees
    assert "relies on 1 of the 3 features that ice found: it has at least 1 % of" in first_line(importance=one)
    assert "(random) shows 1 of these." in first_line(importance=one)
    many = replace(results, classes=results.classes.assign(n_features=12))
    many = replace(many, features=results.features.assign(importance=0.5))
    assert "relies on at least 3 of the 12 features" in laid_out(many).line


def test_a_unit_without_a_card_is_named_by_layer_and_channel() -> None:
    results = invented_cards()
    other = results.features[~((results.features["set"] == 5) & (results.features["feature"] == 7))]
    view = view_of(data_of(laid_out(replace(results, features=other))), "0 zero", "vebi", "random", "10\u00a0%")
    assert view["pairs"][0][1:] == [
        *(-1, "the same unit", True, "ReLU 10 of 12, channel 3 is not among the most important ones"),
    ]


def test_the_page_says_that_features_are_matched(facts: RunFacts, page: InterpretationResults) -> None:
    text = text_of(site_of(facts, replace(page, cards=invented_cards())), "interpretation.html")
    assert "Right: the one of the coreset that it is matched with." in text
    assert "nearest one" not in text


def test_a_coreset_that_is_all_data_is_shown_only_where_there_is_not_a_smaller_one() -> None:
    results = invented_cards()
    whole = replace(results, sets=results.sets[results.sets["set"].isin([0, 2, 4, 5])])
    views = data_of(laid_out(whole))["views"]
    assert [view["key"][2:] for view in views[::2]] == [
        ["ice", "random", "100\u00a0%"],
        ["vebi", "random", "10\u00a0%"],
    ]
    assert views[0]["line"].endswith("A budget of 100\u00a0% is the full data itself.")


def test_many_coresets_are_capped_and_the_page_says_so() -> None:
    results = invented_cards()
    tables = {name: getattr(results, name) for name in ("sets", "classes", "features", "images", "matches")}
    numbers = range(10, 110)
    many = {
        name: pd.concat([table, *(table[table["set"] == 1].assign(set=number) for number in numbers)])
        for name, table in tables.items()
    }
    names = [f"random {number}" for number in many["sets"]["set"]]
    many["sets"] = many["sets"].assign(
        selector=[
            old if number < 10 else new
            for number, old, new in zip(many["sets"]["set"], many["sets"]["selector"], names, strict=True)
        ]
    )
    cards = laid_out(replace(results, **many))
    data = data_of(cards)
    shown = {tuple(view["key"][2:]) for view in data["views"]}
    assert sorted(key[0] for key in shown) == ["ice"] * (cards_module.MAX_SETS // 2) + ["vebi"]
    assert dict(cards.notes)["Left out"].startswith(
        f"{len(shown)} of 103 coresets are here, evenly spread; the table of features has all."
    )
    assert len(data["features"]) <= (cards_module.MAX_SETS + 2) * len(CLASSES) * 3
    assert len(data["images"]) == 2 * len({0, 1, 2, 7, 9})  # features of any set, with 2 images each


def test_images_are_thumbnails_with_boxes_each_once() -> None:
    results = invented_cards()
    cards = laid_out(results)
    data = data_of(cards)
    feature = data["features"][data["views"][0]["pairs"][0][0]]
    assert [image[1:] for image in feature[7]] == [
        [0.0, 0.25, 0.5, 0.75, "sample 120"],
        [0.0, 0.25, 0.5, 0.75, "sample 121"],
    ]
    digest, width, height = data["thumbs"][feature[7][0][0]]
    assert digest == thumbnail(results.pictures["small:20"]).digest
    assert (width, height) == (4, 8)
    assert [thumb.digest for thumb in cards.thumbnails] == [each[0] for each in data["thumbs"]]
    assert len(cards.thumbnails) == len(results.pictures)


def test_without_pictures_there_are_ids_and_without_ids_there_is_nothing() -> None:
    data = data_of(laid_out(invented_cards(pictured=False)))
    assert data["thumbs"] == []
    assert {(image[0], image[5][:6]) for feature in data["features"] for image in feature[7]} == {(-1, "sample")}
    data = data_of(laid_out(invented_cards(pictured=False, ids=False)))
    assert {(image[0], image[5]) for feature in data["features"] for image in feature[7]} == {(-1, "")}


def test_pictures_that_do_not_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    results = invented_cards()
    sizes = [len(thumbnail(picture).uri) for picture in results.pictures.values()]
    monkeypatch.setattr(cards_module, "MAX_THUMBNAIL_BYTES", 3 * max(sizes))
    cards = laid_out(results)
    n = len(cards.thumbnails)
    assert 3 <= n < len(results.pictures)
    assert dict(cards.notes)["Left out"] == f"{len(results.pictures) - n} images are left out to keep the page small."
    data = data_of(cards)
    ranks = [
        image[0] >= 0 for view in data["views"][:1] for mine, *_ in view["pairs"] for image in data["features"][mine][7]
    ]
    assert all(ranks)  # of each feature of all data the first image comes first
    assert all(image[0] >= 0 for feature in data["features"] for image in feature[7][1:])  # no card has a gap


def test_the_notes_say_what_caps_leave_out_and_how_far_apart_classes_are() -> None:
    results = invented_cards()
    notes = dict(laid_out(results).notes)
    assert "Left out" not in notes
    assert "76° apart (small, ice, median)" in notes["Angle"]
    assert notes["Images"].startswith("Of each class at most 40 images of the split val are searched.")
    few = results.classes.assign(shown=results.classes["label"] == 0, n_features=12, n_images=400)
    notes = dict(laid_out(replace(results, classes=few)).notes)
    assert "1 of 2 classes are here, evenly spread" in notes["Left out"]
    assert "Of each class the 3 most important features are here." in notes["Left out"]
    assert "are searched, evenly spread." in notes["Images"]
    one = results.classes.assign(n_images=1, searched=1)
    images = dict(laid_out(replace(results, classes=one)).notes)["Images"]
    assert images.startswith("Of each class 1 image of the split val is searched. ")


def test_unknown_importance_is_a_dash() -> None:
    results = invented_cards()
    data = data_of(laid_out(replace(results, features=results.features.assign(importance=np.nan))))
    assert {(feature[2], feature[3]) for feature in data["features"]} == {(0.0, "–")}


def test_the_page_opens_with_the_cards_and_escapes_what_they_say(facts: RunFacts, page: InterpretationResults) -> None:
    site = site_of(facts, replace(page, cards=invented_cards()))
    html = site["interpretation.html"].decode()
    assert html.index('id="cards-list"') < html.index('class="toc"') < html.index('id="findings"')
    text = text_of(site, "interpretation.html")
    assert "To recognise “zero”, small relies on 2 of the 3 features" in text
    assert "To recognise “zero”, small relies on 2 of the 3 features" in text_of(site, "index.html")
    script = site["assets/cards-data.js"].decode()
    assert not set("<>&") & set(script)
    assert "\\u003cb\\u003eone" in script
    for path in ("assets/cards.js", "assets/cards-data.js"):
        assert f'src="{path}"' in html
    assert html.count('<symbol id="t-') == len(set(html.split('<symbol id="t-')[1:]))
    plain = site_of(facts, page)
    assert "assets/cards.js" not in plain
    assert 'id="cards-list"' not in plain["interpretation.html"].decode()


def test_memory_grows_with_the_classes_that_are_shown() -> None:
    def peak(n_classes: int) -> int:
        results = invented_cards(pictured=False)
        tables = {}
        for name in ("classes", "features", "images", "matches"):
            one = getattr(results, name).query("label == 0")
            tables[name] = pd.concat([one.assign(label=label) for label in range(n_classes)], ignore_index=True)
        shown = tables["classes"].assign(shown=tables["classes"]["label"] < 2)
        many = replace(results, **tables | {"classes": shown})
        tracemalloc.start()
        cards = laid_out(many)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len({view["key"][1] for view in data_of(cards)["views"]}) == 2
        return found

    rows = 500 * 6 * 3 * 2  # of images, at most; a row as a dict takes more than 1,000 bytes
    assert peak(502) - peak(2) < 200 * rows
