"""Mini-Broden, the probing set that the project draws: each image and its label maps follow from (seed, index)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.io.annotations import Vocabulary, vocabulary_of
from tasks.io.drawing.canvas import Canvas
from tasks.io.drawing.dice import Dice
from tasks.io.drawing.labels import CATEGORIES, LABELS, PAIRS
from tasks.io.drawing.scenes import draw_scene
from tasks.io.drawing.surfaces import draw_surface
from tasks.io.drawing.things import draw_object, draw_part
from tasks.io.samples import Row, Sample, array_digest

DRAWING = "1"  # version of the drawing, a part of stage keys
CARD = len(LABELS["scene"])  # class of an image-wide texture or material
DETACHED = 40  # percent of the scenes with a part that belongs to no object

ALL_OCCUR = 1000  # drawings among which every scene is


@dataclass(frozen=True)
class MiniBrodenSource:
    """Drawn images (size, size, 3), all in split `all`, with keys `all/<index>`; the label is the scene's number."""

    count: int
    size: int
    seed: int

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all images."""
        for i in range(self.count):
            yield Row(f"all/{i}", _kind(Dice(self.seed, i)), "all", 3 * self.size**2, "")

    def class_names(self) -> dict[int, str]:
        """Return the scenes and `card` as class names, those of few drawings as far as they occur."""
        names = dict(enumerate((*LABELS["scene"], "card")))
        if self.count >= ALL_OCCUR:
            return names
        drawn = {_kind(Dice(self.seed, i)) for i in range(self.count)}
        return {label: name for label, name in names.items() if label in drawn}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Draw the images of `keys`."""
        images = [self._draw(key)[0] for key in keys]
        return [Sample(image, array_digest(image)) for image in images]

    def vocabulary(self) -> Vocabulary:
        """Return the 56 labels."""
        return vocabulary_of(PAIRS, CATEGORIES)

    def masks(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Return the label maps of `keys`, (n, 6, size, size) int32, a plane for each category."""
        return np.stack([self._draw(key)[1] for key in keys])

    def _draw(self, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return the image and the label maps of a key."""
        return draw(self.seed, int(key.removeprefix("all/")), self.size)


def draw(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw an image of mini-Broden and its label maps.

    Parameters
    ----------
    seed, index : numbers that determine the image
    size : height and width in pixels

    Returns
    -------
    image (size, size, 3) uint8; label numbers (6, size, size) int32, one plane for each category, 0 nothing

    Notes
    -----
    A scene has one to three objects, drawn independently of the scene. Some parts of an object are left out, and
    some parts lie alone, so that objects and parts do not always occur together. A quarter are image-wide textures
    and materials. Integers alone decide about pixels, so that every machine draws the same.
    """
    dice, canvas = Dice(seed, index), Canvas(size)
    kind = _kind(dice)
    if kind == CARD:
        category = dice.choice(("texture", "material"))
        draw_surface(dice.choice(LABELS[category]), category, canvas, dice)
        return canvas.finish(dice)
    draw_scene(LABELS["scene"][kind], canvas, dice)
    things = [(draw_object, dice.choice(LABELS["object"])) for _ in range(dice.between(1, 3))]
    if dice.percent(DETACHED):
        things.insert(dice.below(len(things) + 1), (draw_part, dice.choice(LABELS["part"])))
    for paint, name in things:
        paint(name, canvas, dice)
    return canvas.finish(dice)


def _kind(dice: Dice) -> int:
    """Return the class of an image, which its first random number decides: a scene, or a card in a quarter."""
    number = dice.below(4 * CARD)
    return CARD if number < CARD else number % CARD
