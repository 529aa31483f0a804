"""Cards: planted features give exact boxes, images and shares; those of a run are the ones of plain loops."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.datasets import load_digits
from torch import Tensor

from storage.layouts import ArrayLayout
from storage.stages import FinishedStage, open_finished
from tasks.interpreters import INTERPRETERS
from tasks.steps.interpretation import cards as cards_module
from tasks.steps.interpretation.card_arrays import SEARCHED
from tasks.steps.interpretation.card_pictures import shown_classes
from tasks.steps.interpretation.cards import _Shown
from tasks.steps.interpretation.features import FittedClass
from tasks.steps.interpretation.method import Maps
from tests.plans import cells, interpreted, references

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]


@dataclass
class Planted:
    """Stored arrays in memory, as a finished stage gives them."""

    arrays: dict[str, NDArray[Any]]  # Any: float32

    @property
    def layout(self) -> SimpleNamespace:
        """Return the layout, in chunks of 4 rows."""
        kinds = {n: ArrayLayout(a.shape, str(a.dtype), ("a",) * a.ndim, 8, 4) for n, a in self.arrays.items()}
        return SimpleNamespace(arrays=kinds)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:  # Any: float32
        """Return rows of an array."""
        return self.arrays[name][start:stop]


def planted(n: int) -> tuple[Planted, FittedClass]:
    """Return n images whose channel 0 responds at one position each, and 1 on image 7 alone; features are channels."""
    maps = np.zeros((n, 4, 8, 3), np.float32)
    for image in range(n):
        maps[image, image % 4, image % 8, 0] = 1 + image
    maps[7, 1, 5:8, 1] = 6.0
    maps[7, 2, 5, 1] = 2.0
    arrays = {"components": np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0]], np.float32)}
    return Planted({"maps": maps, "logits": np.zeros((n, 2), np.float32)}), FittedClass(INTERPRETERS["ice"], arrays)


def head(maps: Tensor, apart: Maps | None = None) -> Tensor:
    """Return two logits: the sum of channel 0, and the square of the sum of channel 1 with a bias of 4."""
    assert apart is None
    sums = maps.sum(dim=(1, 2))
    return torch.stack([sums[:, 0], sums[:, 1] ** 2 + 4], dim=1)


def shown(stored: Planted, *, in_line: bool = False) -> _Shown:
    """Return planted samples with the head above."""
    return _Shown(cast(FinishedStage, stored), head, in_line)


def test_planted_features_have_their_images_boxes_and_shares() -> None:
    stored, fitted = planted(16)
    found = shown(stored).cards(fitted, 0, (4, 14))
    np.testing.assert_array_equal(found.feature, [2, 0])  # component 1 has length 0
    np.testing.assert_allclose(found.importance, [1.0, 0.0], rtol=1e-6)  # the logit is the sum of channel 0
    np.testing.assert_array_equal(found.position, [[13, 12, 11, 10], [7, -1, -1, -1]])
    np.testing.assert_allclose(found.value, np.array([[14, 13, 12, 11], [6, *[np.nan] * 3]]), rtol=1e-6)
    boxes = [[(i % 4) / 4, (i % 8) / 8, (i % 4 + 1) / 4, (i % 8 + 1) / 8] for i in (13, 12, 11, 10)]
    np.testing.assert_allclose(found.box[0], boxes)
    np.testing.assert_allclose(found.box[1, 0], [0.25, 0.625, 0.5, 1.0])  # a third of the peak is not part of it
    np.testing.assert_allclose(found.activity, [8 / 10, 1 / 10])  # at least 7 of 14 on images 6 to 13
    assert found.searched == 10


def test_importance_of_a_curved_head_is_the_derivative_along_the_features_part() -> None:
    stored, fitted = planted(16)
    found = shown(stored).cards(fitted, 1, (7, 8))
    # Channel 1 sums to 20 on image 7: d/ds (20 (1 + s))^2 = 800 at s = 0, of a logit of 404.
    np.testing.assert_array_equal(found.feature, [0, 2])
    np.testing.assert_allclose(found.importance, [800 / 404, 0.0], rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 96, 1000])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    stored, fitted = planted(16)
    whole = shown(stored).cards(fitted, 1, (0, 16))
    monkeypatch.setattr(cards_module, "CHUNK_VALUES", chunk)
    parts = shown(stored).cards(fitted, 1, (0, 16))
    for name in ("feature", "activity", "position", "value", "box"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_allclose(parts.importance, whole.importance, rtol=1e-12)


def test_positions_in_a_line_have_no_box_of_their_own() -> None:
    stored, fitted = planted(16)
    found = shown(stored, in_line=True).cards(fitted, 0, (4, 14))
    np.testing.assert_array_equal(found.box[0], [[0, 0, 1, 1]] * 4)
    assert np.isnan(found.box[1, 1:]).all()


def test_a_head_without_gradients_leaves_importance_unknown() -> None:
    stored, fitted = planted(16)
    found = _Shown(cast(FinishedStage, stored), None, False).cards(fitted, 0, (4, 14))
    assert np.isnan(found.importance).all()
    np.testing.assert_array_equal(found.feature, [0, 2])  # by number
    np.testing.assert_array_equal(found.position[1], [13, 12, 11, 10])


def test_a_large_class_is_searched_evenly() -> None:
    stored, fitted = planted(2 * SEARCHED - 1)
    found = shown(stored).cards(fitted, 0, (0, 2 * SEARCHED - 1))
    assert found.searched == SEARCHED
    np.testing.assert_array_equal(found.position[0], [2 * SEARCHED - 2 * i for i in range(1, 5)])


def by_hand(components: Doubles, maps: Doubles) -> Doubles:
    """Return the codes (n, h, w, r) of every position, one after the other."""
    codes = [nnls(components.T, row.clip(min=0))[0] for row in maps.reshape(-1, maps.shape[-1])]
    return np.array(codes).reshape(*maps.shape[:3], -1)


def test_cards_of_a_run_are_those_of_plain_loops(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    (answer,) = interpreted(finished_run.plan)
    images, double = plain["val"], copy.deepcopy(plain["val"].head).double()
    reference = references(finished_run.plan)["small", 0, "ice"]
    fitted = np.asarray(open_finished(finished_run.job.store, reference).read("components"), np.float64)
    stage = open_finished(finished_run.job.store, answer.cards[reference.path])
    np.testing.assert_array_equal(stage.read("label"), np.arange(10))
    np.testing.assert_array_equal(stage.read("searched"), [4] * 10)
    for label in (0, 4, 9):
        at = images.of_class(label)
        maps = images.maps[at].astype(np.float64)
        codes, step = by_hand(fitted[label], maps), 1e-4

        def mean_logit(given: Doubles, label: int = label) -> float:
            with torch.inference_mode():
                return float(double(torch.from_numpy(given).movedim(-1, 1))[:, label].mean())

        parts = [codes[..., k, None] * fitted[label, k] for k in range(3)]
        rise = [(mean_logit(maps + step * part) - mean_logit(maps - step * part)) / (2 * step) for part in parts]
        importance = np.array(rise) / abs(mean_logit(maps))
        order = np.argsort(-importance, kind="stable")
        np.testing.assert_array_equal(stage.read("feature")[label], order)
        np.testing.assert_allclose(stage.read("importance")[label], importance[order], rtol=1e-3, atol=1e-4)
        largest = codes.max(axis=(1, 2))
        for slot, k in enumerate(order):
            best = np.argsort(-largest[:, k], kind="stable")[:4]
            np.testing.assert_array_equal(stage.read("position")[label, slot], at[best])
            np.testing.assert_allclose(stage.read("value")[label, slot], largest[best, k], rtol=1e-3)
            active = (largest[:, k] >= largest[:, k].max() / 2).mean()
            np.testing.assert_allclose(stage.read("activity")[label, slot], active)


def test_every_first_draw_and_the_full_data_have_cards(finished_run: "Run") -> None:
    (answer,) = interpreted(finished_run.plan)
    firsts = {cell.features.path for cell in cells(finished_run.plan) if not cell.repeat}
    assert set(answer.cards) == firsts | {spec.path for spec in answer.references.values()}
    assert {spec.inputs["activations"] for spec in answer.cards.values()} == {answer.held_out}  # no training image


def test_pictures_are_all_images_of_the_cards_once(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    (answer,) = interpreted(finished_run.plan)
    store = finished_run.job.store
    assert answer.card_pictures is not None
    stage = open_finished(store, answer.card_pictures)
    found = [np.asarray(open_finished(store, spec).read("position")) for spec in answer.cards.values()]
    expected = sorted({int(at) for each in found for at in each.ravel()} - {-1})
    np.testing.assert_array_equal(stage.read("position"), expected)
    levels = np.rint(load_digits().images[plain["val"].ids[expected]] * 255 / 16)
    np.testing.assert_array_equal(stage.read("image"), np.repeat(levels[..., None], 3, axis=-1))


def test_only_the_first_seed_has_pictures(finished_run: "Run", new_run: "Callable[[Tree], Run]") -> None:
    first, second = interpreted(new_run({**finished_run.tree, "seeds": [3, 4]}).plan)
    assert first.card_pictures is not None
    assert second.card_pictures is None
    assert second.cards


def test_without_a_gallery_there_are_no_pictures(finished_run: "Run", new_run: "Callable[[Tree], Run]") -> None:
    asked = {**finished_run.tree["interpretation"], "gallery": 0}
    (answer,) = interpreted(new_run({**finished_run.tree, "interpretation": asked}).plan)
    assert answer.card_pictures is None
    assert answer.cards


def test_at_most_20_classes_have_pictures_evenly_spread() -> None:
    np.testing.assert_array_equal(shown_classes(20), np.arange(20))
    np.testing.assert_array_equal(shown_classes(39), np.arange(0, 39, 2))
    assert len(shown_classes(1000)) == 20
