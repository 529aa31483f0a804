"""The opening of the decomposition page: its sentence, its cards, what is left out, and what may be shown."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.figures.overlay import thumbnail
from tasks.report.decomposition import deciders
from tasks.report.decomposition.deciders import answer, deciders_of
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.formats import NBSP
from tasks.report.pages import RunFacts
from tests.tasks.report.decomposition.decomposed_network import page_of
from tests.tasks.report.decomposition.decomposition_features import invented_features, invented_images, sample_id
from tests.tasks.report.decomposition.decomposition_site import text_of
from tests.tasks.report.decomposition.decomposition_tables import Decompositions
from tests.tasks.report.site_pages import site_of

KEY: dict[str, object] = {"network": "small", "seed": 0}
NAMES = ("cat", "dog", "owl")
SETS = np.array([[7, 2], [2, 9], [2, 4]])  # feature 2 serves all three classes


def planted(**network: object) -> DecompositionResults:
    """A page of three classes with two features each."""
    features = pd.DataFrame(invented_features(KEY, NAMES, SETS))
    images = invented_images(KEY, NAMES, SETS, 8)
    return replace(page_of({"k2": 2, "k1": "3"} | network), features=features, top_images=(images,))


def data_of(site: dict[str, bytes]) -> list[dict[str, Any]]:  # Any: JSON
    """Return what the script of the opening gets, by network."""
    found = re.search(rb'id="deciders-data">(.*?)</script>', site["decomposition.html"])
    assert found is not None
    networks: list[dict[str, Any]] = json.loads(found[1])["networks"]
    return networks


def test_the_first_sentence_answers_the_title(facts: RunFacts) -> None:
    page = planted(ratio=0.972)
    text = text_of(site_of(facts, page))
    said = (
        "2 of 64 features decide each class: with them alone the network keeps 97.2 % of its accuracy. "
        "1 of the 4 features in use is shared by several classes."
    )
    assert f"Which few features decide each class? {said}" in text
    row = page.networks.iloc[0]
    poor = answer(row.where(row.index != "ratio", 0.5), page.features)
    assert poor.startswith(
        f"2 of 64 features do not decide a class: with them alone the network keeps only 50.0{NBSP}%"
    )
    unknown = answer(row.where(row.index != "ratio", np.nan), page.features)
    assert unknown.startswith("2 of 64 features stand for each class; 1 of the 4")


def test_cards_name_the_features_their_share_weight_and_other_classes(facts: RunFacts) -> None:
    (network,) = data_of(site_of(facts, planted()))
    numbers = [feature[0] for feature in network["features"]]
    assert numbers == [7, 2, 9, 4]
    users = {number: users for number, users, _ in network["features"]}
    assert users == {7: [[0, 1]], 2: [[0, 2], [1, 1], [2, 1]], 9: [[1, 2]], 4: [[2, 2]]}  # class and rank
    first, second = [0, f"100{NBSP}%", 1.0, "+0.500", 0], f"98{NBSP}%"
    assert network["classes"][0] == ["cat", [first, [1, second, 0.98, "−0.250", 1]]]
    assert [name for name, _ in network["classes"]] == list(NAMES)
    assert [[card[0] for card in cards] for _, cards in network["classes"]] == [[0, 1], [1, 2], [1, 3]]
    assert (network["counted"], network["of"], network["shown"]) == ("top 3", "of the class, of split train", "train")
    images = {number: images for number, _, images in network["features"]}
    rows, pictures = planted().top_images[0].rows, planted().top_images[0].pictures
    for number, shown in images.items():
        mine = rows[rows["feature"] == number]
        digests = [thumbnail(pictures[index]).digest for index in mine["picture"]]
        assert [image[0] for image in shown] == digests
        assert [image[3] for image in shown] == [sample_id(number, i) for i in range(4)]
        assert shown[0][4:] == [NAMES[number % 3], "9.00", [0, 0, 4, 4]]  # upper left quarter of 8 x 8 pixels


def test_a_coverage_and_a_single_feature_are_worded(facts: RunFacts) -> None:
    (network,) = data_of(site_of(facts, planted(k1="coverage 0.9")))
    assert (network["counted"], network["among"][:18]) == ("counted", "one of the largest")
    (network,) = data_of(site_of(facts, planted(k1="1")))
    assert (network["counted"], network["among"]) == ("largest", "the largest")


def test_other_rankings_and_groups_are_worded(facts: RunFacts) -> None:
    (network,) = data_of(site_of(facts, planted(rank_by="contribution", group_by="prediction")))
    assert network["among"] == "one of the 3 largest by contribution to the class's logit"
    assert network["of"] == "predicted as the class, of split train"


def test_many_features_have_a_card_for_the_first_ten(facts: RunFacts, build_decomposition: Decompositions) -> None:
    page = build_decomposition(NAMES, (("n", "m", 3),), k=12, n_maps=0)
    site = site_of(facts, page)
    (network,) = data_of(site)
    assert [len(cards) for _, cards in network["classes"]] == [10] * 3
    assert "Of the 12 features of each class the first 10 have a card; the tables have all." in text_of(site)
    assert {len(users) for _, users, _ in network["features"]} >= {1}
    assert sum(len(users) for _, users, _ in network["features"]) == 36


def test_pictures_beyond_the_room_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    page = planted()
    whole = deciders_of(page)
    assert whole is not None
    assert len(whole.thumbnails) == 16
    room = sum(len(thumb.uri) for thumb in whole.thumbnails[:6])  # one feature and a half
    monkeypatch.setattr(deciders, "MAX_THUMBNAIL_BYTES", room)
    few = deciders_of(page)
    assert few is not None
    assert few.thumbnails == whole.thumbnails[:6]
    assert few.notes == ("small: 2 features have no pictures here, to keep the page small.",)


def test_networks_beyond_the_cap_are_counted(monkeypatch: pytest.MonkeyPatch, facts: RunFacts) -> None:
    monkeypatch.setattr(deciders, "MAX_NETWORKS", 1)
    one = planted()
    other = {name: getattr(one, name).assign(network="other") for name in ("networks", "features")}
    both = replace(one, **{name: pd.concat([getattr(one, name), frame]) for name, frame in other.items()})
    site = site_of(facts, both)
    assert [network["name"] for network in data_of(site)] == ["small"]
    assert "The first 1 of 2 networks have cards." in text_of(site)


def test_without_features_the_page_begins_with_the_two_accuracies(facts: RunFacts) -> None:
    site = site_of(facts, page_of())
    assert b'id="deciders-data"' not in site["decomposition.html"]
    assert "decide each class? With 5 of 64 features for each class the network classifies" in text_of(site)
    assert b'<ol class="bars"' in site["decomposition.html"]  # the picture of the first screen


@pytest.mark.parametrize("setting", ["show", "ids", "none", "odd"])
@pytest.mark.parametrize(
    ("split", "learn", "held_out", "may"),
    [
        ("train", "train", False, False),
        ("val", "val", True, False),  # the sets were learned from it
        ("val", "train", False, False),  # a network was trained on it
        ("unknown", "train", True, False),
        ("val", "train", True, True),
        ("test", "train", True, True),
    ],
)
def test_training_images_and_their_ids_are_shown_only_where_allowed(
    facts: RunFacts, setting: str, split: str, learn: str, held_out: bool, may: bool
) -> None:
    page = planted(learn=learn)
    (images,) = page.top_images
    site = site_of(
        replace(facts, training_images=setting),
        replace(page, top_images=(replace(images, split=split, held_out=held_out),)),
    )
    pictures = setting == "show" or may
    for picture in images.pictures:
        made = thumbnail(picture)
        for needle in (made.digest.encode(), made.uri.encode()[64:]):
            assert any(needle in data for data in site.values()) == pictures
    for number in sorted({*SETS.ravel().tolist()}):
        needle = str(sample_id(number, 1)).encode()
        assert any(needle in data for data in site.values()) == (pictures or setting == "ids")
    said = f"Images of split {split} are not shown: report.training_images keeps them out."
    assert (said in text_of(site)) == (not pictures)
    assert data_of(site)[0]["classes"][0][0] == "cat"  # the cards stay, with numbers alone
