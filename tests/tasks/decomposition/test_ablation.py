"""Noise in place of a class's influential features, or of others."""

import numpy as np
import pytest

from tasks.decomposition import (
    NOISES,
    SCOPES,
    WHICH,
    FeatureMoments,
    choose_replaced,
    classes_of_scope,
    draw_normals,
    membership,
    perturb,
)
from tasks.decomposition.ablation import Scope

INDICES = np.array([[0, 1], [1, 4], [5, 2]])
MOMENTS = FeatureMoments(np.arange(6, dtype=np.float64), np.full(6, 0.5))


def test_noise_hangs_on_seed_draw_and_sample_alone() -> None:
    ids = np.array([7, 0, 3, 2**40, -1, 12])
    whole = draw_normals(ids, 6, seed=[4, 1], draw=2)
    for chunk in ([0], [3, 1], [5, 4, 2, 1]):
        assert draw_normals(ids[chunk], 6, seed=(4, 1), draw=2).tobytes() == whole[chunk].tobytes()
    others = [draw_normals(ids, 6, seed=[4, 1], draw=3), draw_normals(ids, 6, seed=[4, 2], draw=2)]
    for other in others:
        assert not (other == whole).any()
    assert len(np.unique(whole)) == whole.size


def test_noise_is_standard_normal() -> None:
    normals = draw_normals(np.arange(2000), 20, seed=0, draw=0)
    np.testing.assert_allclose([normals.mean(), normals.std()], [0, 1], atol=5 / np.sqrt(40_000))
    correlation = np.corrcoef(normals[:-1].ravel(), normals[1:].ravel())[0, 1]  # of neighbouring samples
    assert abs(correlation) < 5 / np.sqrt(40_000)


def test_every_noise_by_hand() -> None:
    normals = np.array([[1.0, -2.0]])
    moments = FeatureMoments(np.array([10.0, 20.0]), np.array([0.5, 3.0]))
    found = {name: noise(normals, moments).tolist() for name, noise in NOISES.items()}
    assert found == {"standard": [[1.0, -2.0]], "zero": [[0.0, 0.0]], "feature_moments": [[10.5, 14.0]]}


def test_sets_by_hand() -> None:
    own = membership(INDICES, 6)
    np.testing.assert_array_equal(choose_replaced(INDICES, 6, "influential"), own)
    np.testing.assert_array_equal(choose_replaced(INDICES, 6, "others"), ~own)
    union = np.tile([True, True, True, False, True, True], (3, 1))
    np.testing.assert_array_equal(choose_replaced(INDICES, 6, "influential", scope="union"), union)
    np.testing.assert_array_equal(choose_replaced(INDICES, 6, "others", scope="union"), ~union)
    # fewer others than the union has features: all of them
    np.testing.assert_array_equal(choose_replaced(INDICES, 6, "equal-size", scope="union"), ~union)


@pytest.mark.parametrize("scope", ["label", "predicted"])
def test_equal_sizes_are_drawn_from_the_others_anew_for_every_draw(scope: str) -> None:
    assert scope in SCOPES
    own = membership(INDICES, 6)
    counts = np.zeros((3, 6))
    for draw in range(600):
        drawn = choose_replaced(INDICES, 6, "equal-size", scope=scope, seed=[3], draw=draw)  # type: ignore[arg-type]
        assert not (drawn & own).any()
        np.testing.assert_array_equal(drawn.sum(axis=1), 2)
        counts += drawn
    np.testing.assert_allclose(counts[~own], 300, atol=5 * np.sqrt(600 / 4))
    again = choose_replaced(INDICES, 6, "equal-size", seed=3, draw=599)
    np.testing.assert_array_equal(again, drawn)


def test_equal_sizes_of_the_union_are_one_set_for_all_classes() -> None:
    drawn = choose_replaced(INDICES, 30, "equal-size", scope="union", seed=1, draw=4)
    assert (drawn == drawn[0]).all()
    assert drawn[0].sum() == 5
    assert not drawn[0, np.unique(INDICES)].any()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_the_chosen_features_give_way(dtype: str, which: str, noise: str) -> None:
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(8, 6)).astype(dtype), rng.integers(0, 3, 8)
    before = features.copy()
    put = NOISES[noise](draw_normals(np.arange(8), 6, seed=0, draw=0), MOMENTS)
    replaced = choose_replaced(INDICES, 6, which)  # type: ignore[arg-type]  # pytest gives plain strings
    found = perturb(features, classes, replaced, put)
    for i in range(8):
        for j in range(6):
            expected = put[i, j].astype(dtype) if replaced[classes[i], j] else features[i, j]
            assert found[i, j] == expected
    assert found.dtype == dtype
    np.testing.assert_array_equal(features, before)
    np.testing.assert_array_equal(perturb(features[3:5], classes[3:5], replaced, put[3:5]), found[3:5])


def test_scopes_take_the_label_or_the_prediction() -> None:
    labels, predictions = np.array([0, 1]), np.array([2, 1])
    assert classes_of_scope("label", labels, predictions) is labels
    assert classes_of_scope("predicted", labels, predictions) is predictions
    assert classes_of_scope("union", labels, predictions) is labels


def test_planted_features_carry_the_class() -> None:
    rng = np.random.default_rng(1)
    sets = np.arange(20).reshape(4, 5)
    labels = rng.integers(0, 4, 400)
    features = np.abs(rng.normal(0, 0.1, (400, 40)))
    np.put_along_axis(features, sets[labels], 1.0, axis=1)
    weight = membership(sets, 40).astype(np.float64)
    moments = FeatureMoments(features.mean(axis=0), features.std(axis=0))
    normals = draw_normals(np.arange(400), 40, seed=0, draw=0)

    def accuracy(which: str, noise: str) -> float:
        replaced = choose_replaced(sets, 40, which)  # type: ignore[arg-type]  # a plain string
        perturbed = perturb(features, labels, replaced, NOISES[noise](normals, moments))
        return float(((perturbed @ weight.T).argmax(axis=1) == labels).mean())

    assert accuracy("influential", "zero") < 0.1 < 0.95 < accuracy("others", "zero")
    assert accuracy("influential", "standard") < 0.5 < 0.7 < accuracy("others", "standard")


def test_what_does_not_fit_is_refused() -> None:
    replaced = choose_replaced(INDICES, 6, "others")
    with pytest.raises(ValueError, match=r"noise: expected shape \(2, 6\), found \(3, 6\)"):
        perturb(np.zeros((2, 6)), np.zeros(2, dtype=np.int64), replaced, np.zeros((3, 6)))
    with pytest.raises(ValueError, match=r"features: expected shape \(m, 6\), found \(2, 5\)"):
        perturb(np.zeros((2, 5)), np.zeros(2, dtype=np.int64), replaced, np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"classes: expected 0\.\.2, found 3 at row 0"):
        perturb(np.zeros((1, 6)), np.array([3]), replaced, np.zeros((1, 6)))
    with pytest.raises(
        ValueError, match="which in influential, others, equal-size; scope in label, predicted, union, f"
    ):
        choose_replaced(INDICES, 6, "most")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match=r"ids: expected integers of shape \(m,\), found float64 of shape \(2,\)"):
        draw_normals(np.zeros(2), 3, seed=0, draw=0)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("scope", ["label", "union"])
def test_classes_without_images_have_no_say(scope: Scope) -> None:
    indices, present = np.array([[0, 1], [1, 2], [4, 5]]), np.array([True, True, False])
    found = choose_replaced(indices, 8, "influential", scope=scope, present=present)
    members = [{0, 1}, {1, 2}] if scope == "label" else [{0, 1, 2}] * 2
    assert [{*np.flatnonzero(row).tolist()} for row in found] == [*members, set()]
    others = choose_replaced(indices, 8, "others", scope=scope, present=present)
    assert [{*np.flatnonzero(row).tolist()} for row in others] == [*({*range(8)} - one for one in members), set()]
