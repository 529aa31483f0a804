"""Tests of `tasks.io.mini_broden` and of its drawing."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.io.annotations import coverage
from tasks.io.drawing.canvas import Canvas
from tasks.io.drawing.colors import color_numbers
from tasks.io.drawing.dice import Dice
from tasks.io.drawing.labels import CATEGORIES, LABELS, NUMBERS
from tasks.io.drawing.things import PARTS, THINGS
from tasks.io.mini_broden import ALL_OCCUR, CARD, MiniBrodenSource, draw

OBJECT, PART, SCENE, MATERIAL, TEXTURE, COLOR = range(6)


@pytest.fixture(scope="module")
def drawn() -> MiniBrodenSource:
    return MiniBrodenSource(400, 64, 3)


@pytest.fixture(scope="module")
def planes(drawn: MiniBrodenSource) -> NDArray[np.int32]:
    return drawn.masks([row.key for row in drawn.rows()])


def test_the_numbers_are_those_of_pcg64() -> None:
    words = np.random.PCG64([7, 2]).random_raw(4)
    dice = Dice(7, 2)
    assert [dice.below(1000) for _ in range(4)] == [int(word >> 32) * 1000 >> 32 for word in words.tolist()]
    assert {Dice(7, 2).between(-1, 1) for _ in range(3)} <= {-1, 0, 1}


def test_images_are_the_same_on_every_machine() -> None:
    total = hashlib.sha256()
    for size in (64, 45):
        for index in range(100):  # all labels are among them
            for part in draw(5, index, size):
                total.update(part.astype("<i4").tobytes())
    assert total.hexdigest()[:16] == "85eae9e38aba6458"


def test_an_image_depends_on_seed_and_index_alone(drawn: MiniBrodenSource) -> None:
    longer = MiniBrodenSource(1000, 64, 3)
    for a, b in zip(drawn.read(["all/7", "all/1"]), longer.read(["all/7", "all/1"]), strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    first, other = (np.asarray(MiniBrodenSource(1, 64, seed).read(["all/0"])[0].image) for seed in (3, 4))
    assert np.mean(first != other) > 0.5


def test_each_size_has_the_same_picture() -> None:
    for index in range(6):
        small, large = (draw(0, index, size)[1] for size in (32, 96))
        assert np.mean(small[:COLOR] == large[:COLOR, 1::3, 1::3]) > 0.97  # the middles of blocks are the same points


def test_rows_have_the_scene_as_label(drawn: MiniBrodenSource, planes: NDArray[np.int32]) -> None:
    labels = np.array([row.label for row in drawn.rows()])
    scenes = planes[:, SCENE].max(axis=(1, 2))
    np.testing.assert_array_equal(scenes[labels < CARD], NUMBERS["beach", "scene"] + labels[labels < CARD])
    assert not scenes[labels == CARD].any()
    assert 0.18 < np.mean(labels == CARD) < 0.32  # a quarter, three standard deviations of 400 draws
    assert drawn.class_names()[int(labels.max())] == "card"
    assert drawn.class_names()[2] == "forest"


@pytest.mark.parametrize("count", [1, 5, 40])
def test_classes_of_few_drawings_are_those_that_occur(count: int) -> None:
    source = MiniBrodenSource(count, 64, 3)
    names = source.class_names()
    assert set(names) == {row.label for row in source.rows()}
    everything = MiniBrodenSource(ALL_OCCUR, 64, 3)
    assert set(everything.class_names()) == {row.label for row in everything.rows()} == set(range(CARD + 1))
    assert names.items() <= everything.class_names().items()


def test_every_label_occurs_in_its_plane_alone(drawn: MiniBrodenSource, planes: NDArray[np.int32]) -> None:
    vocabulary = drawn.vocabulary()
    assert len(vocabulary.names) == 57
    assert vocabulary.categories == CATEGORIES
    for plane, category in enumerate(CATEGORIES):
        found = set(np.unique(planes[:, plane]).tolist()) - {0}
        assert found == {NUMBERS[name, category] for name in LABELS[category]}


def test_cards_are_whole_images_and_scenes_are_not_cards(drawn: MiniBrodenSource, planes: NDArray[np.int32]) -> None:
    cards = np.array([row.label == CARD for row in drawn.rows()])
    surfaces = planes[:, [MATERIAL, TEXTURE]]
    np.testing.assert_array_equal((surfaces.max(axis=1) > 0).min(axis=(1, 2)), cards)
    np.testing.assert_array_equal((surfaces > 0).any(axis=(1, 2, 3)), cards)
    assert not planes[cards][:, [OBJECT, PART, SCENE]].any()


def test_objects_and_parts_do_not_always_occur_together(planes: NDArray[np.int32]) -> None:
    share = coverage(planes, 57)
    wheel, car, bus = (
        share[:, NUMBERS[pair]] > 0 for pair in (("wheel", "part"), ("car", "object"), ("bus", "object"))
    )
    assert (wheel & ~car & ~bus).any()  # detached
    assert (car & ~wheel).any()
    alone = (planes[:, PART] > 0) & (planes[:, OBJECT] == 0)
    assert 0.1 < alone.any(axis=(1, 2)).mean() < 0.4
    partless = np.isin(planes[:, OBJECT], [NUMBERS[name, "object"] for name in ("ball", "cloud", "star")])
    assert not planes[:, PART][partless].any()


def test_colors_are_those_of_the_pixels(drawn: MiniBrodenSource, planes: NDArray[np.int32]) -> None:
    image = np.asarray(drawn.read(["all/5"])[0].image)
    np.testing.assert_array_equal(planes[5, COLOR], color_numbers(image))
    named = {
        **{(255, 0, 0): "red", (255, 128, 0): "orange", (250, 220, 40): "yellow", (30, 160, 60): "green"},
        **{(20, 60, 220): "blue", (130, 30, 200): "purple", (250, 140, 190): "pink", (110, 66, 34): "brown"},
        **{(10, 10, 12): "black", (250, 250, 250): "white", (128, 128, 130): "grey"},
    }
    for color, name in named.items():
        assert color_numbers(np.array(color, dtype=np.uint8)) == NUMBERS[name, "color"], name


def test_shapes_by_hand() -> None:
    canvas = Canvas(32)  # a pixel is 32 units; the first centre is at 16
    disc = canvas.ellipse(512, 512, 256, 128)
    assert (int(disc[16].sum()), int(disc[:, 16].sum())) == (16, 8)
    square = canvas.polygon((0, 0), (128, 0), (128, 128), (0, 128))
    np.testing.assert_array_equal(np.argwhere(square).max(axis=0), [3, 3])
    np.testing.assert_array_equal(square, canvas.polygon((0, 128), (128, 128), (128, 0), (0, 0)))
    assert square.sum() == 16


def test_the_last_paint_is_what_is_seen() -> None:
    canvas = Canvas(32)
    canvas.fill(None, (0, 0, 0))
    canvas.thing(canvas.ellipse(512, 512, 300, 300), (200, 40, 40), obj="car")
    canvas.thing(canvas.ellipse(512, 512, 100, 100), (20, 20, 220), obj="car", part="wheel")
    pixels, planes = canvas.finish(Dice(0, 0))
    assert planes[OBJECT, 16, 16] == planes[OBJECT, 16, 10] == NUMBERS["car", "object"]
    assert planes[PART, 16, 16] == NUMBERS["wheel", "part"]
    assert planes[PART, 16, 10] == planes[OBJECT, 0, 0] == 0
    assert planes[COLOR, 16, 16] == NUMBERS["blue", "color"]
    assert pixels[16, 10, 0] > 150


def test_the_tables_of_shapes_are_whole() -> None:
    assert set(THINGS) == set(LABELS["object"])
    assert set(PARTS) == set(LABELS["part"])
