"""Streams over chunks of images and of neurons against the one-shot forms."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from tasks.detectors import SIMILARITIES
from tasks.detectors.activity import dead
from tasks.detectors.concept_side import ConceptMoments, ConceptSide
from tasks.detectors.marginal import subtract
from tasks.detectors.streaming import STREAMS
from tests.tasks.detectors.slow_similarities import CONSTANT, Probe

CHUNKS = [slice(31, 40), slice(0, 1), slice(14, 31), slice(1, 14)]
CASES: dict[str, tuple[str, dict[str, Any], float]] = {  # Any: parameters; the last is the weight of the marginal
    "cos": ("cos", {}, 0.0),
    "cos_cubed": ("cos_cubed", {}, 0.0),
    "cos_cubed scale-free": ("cos_cubed", {"min_norm": "scale-free"}, 0.0),
    "wpmi": ("wpmi", {"top_k": 6}, 0.6),
    "soft_wpmi": ("soft_wpmi", {"top_k": 11, "lam": 0.8}, 0.8),
    "rank_reorder": ("rank_reorder", {"top_fraction": 0.3}, 0.0),
}


def side_of(probe: Probe) -> ConceptSide:
    moments = ConceptMoments()
    for rows in CHUNKS:
        moments.update(probe.scores[rows])
    return moments.side()


@pytest.mark.parametrize("case", CASES)
def test_chunks_of_images_in_any_order_equal_one_shot(case: str, probe: Probe) -> None:
    name, params, _ = CASES[case]
    side = side_of(probe)
    streams = [STREAMS[name](probe.activations, side, **params) for _ in range(2)]
    for which, rows in zip((0, 1, 1, 0), CHUNKS, strict=True):
        streams[which].update(rows.start, probe.scores[rows])
    received = pickle.loads(pickle.dumps(streams[1]))  # noqa: S301
    merged = streams[0].merge(received).similarity()
    assert isinstance(merged, np.ndarray)
    np.testing.assert_allclose(
        merged, SIMILARITIES[name](probe.activations, probe.scores, **params), rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("case", CASES)
def test_chunks_of_neurons_equal_one_shot(case: str, probe: Probe) -> None:
    name, params, lam = CASES[case]
    side, joints = side_of(probe), []
    for neurons in (slice(0, 3), slice(3, 4), slice(4, 7)):
        stream = STREAMS[name](probe.activations[:, neurons], side, **params)
        for rows in CHUNKS:
            stream.update(rows.start, probe.scores[rows])
        joints.append(np.asarray(stream.joint()))
    result = subtract(np.concatenate(joints), dead(probe.activations) == 0, lam)
    np.testing.assert_allclose(
        result, SIMILARITIES[name](probe.activations, probe.scores, **params), rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("name", ["cos", "cos_cubed", "rank_reorder"])
def test_blocks_of_words_equal_one_shot(name: str, probe: Probe) -> None:
    params = {"top_fraction": 0.3} if name == "rank_reorder" else {}
    whole = np.asarray(SIMILARITIES[name](probe.activations, probe.scores, **params))
    for words in (slice(0, 4), slice(4, 9)):
        stream = STREAMS[name](probe.activations, side_of(probe).block(words), **params)
        for rows in CHUNKS:
            stream.update(rows.start, probe.scores[rows, words])
        np.testing.assert_allclose(stream.similarity(), whole[:, words], rtol=1e-10, atol=1e-13)


def test_a_stream_of_tensors_gives_a_tensor(probe: Probe) -> None:
    side = side_of(probe)
    narrow = torch.from_numpy(probe.activations).float()
    stream = STREAMS["cos_cubed"](narrow, side).update(0, torch.from_numpy(probe.scores).float())
    result = stream.similarity()
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float64


def test_the_concept_side_has_the_moments_of_each_column(probe: Probe) -> None:
    first = ConceptMoments().update(probe.scores[:1]).update(probe.scores[1:20])
    second = ConceptMoments().update(probe.scores[20:])
    for side in (side_of(probe), first.merge(second).merge(ConceptMoments()).side(), second.merge(first).side()):
        assert side.n_words == 9
        if side.n_images == 40:
            centred = probe.scores - probe.scores.mean(axis=0)
            np.testing.assert_allclose(side.mean, probe.scores.mean(axis=0), rtol=1e-13)
            np.testing.assert_allclose(side.norm, np.linalg.norm(probe.scores, axis=0), rtol=1e-13)
            np.testing.assert_allclose(side.cubed_norm, np.linalg.norm(centred**3, axis=0), rtol=1e-12, atol=1e-40)
            np.testing.assert_array_equal(side.constant, np.arange(9) == CONSTANT)
            assert side.cubed_norm[CONSTANT] == 0


def test_moments_far_from_zero_keep_their_digits() -> None:
    column = np.random.default_rng(3).normal(size=(1000, 1))
    moments = ConceptMoments()
    for start in range(0, 1000, 7):
        moments.update(column[start : start + 7] + 1e4)
    exact = column + 1e4
    exact = exact - exact.mean()
    np.testing.assert_allclose(moments.side().cubed_norm, np.linalg.norm(exact**3, axis=0), rtol=1e-10)


def test_bad_chunks_are_named(probe: Probe) -> None:
    side = side_of(probe)
    stream = STREAMS["cos"](probe.activations, side).update(0, probe.scores[:10])
    with pytest.raises(ValueError, match="update: expected each image once, found image 5 again"):
        stream.update(5, probe.scores[5:12])
    with pytest.raises(ValueError, match=r"start: expected 10 rows within 0..40, found the first at 35"):
        stream.update(35, probe.scores[:10])
    with pytest.raises(ValueError, match=r"start: expected 10 rows within 0..40, found the first at -1"):
        stream.update(-1, probe.scores[:10])
    with pytest.raises(ValueError, match=r"scores: expected shape \(any, 9\), none of them 0, found \(3, 8\)"):
        stream.update(10, probe.scores[:3, :8])
    with pytest.raises(ValueError, match="similarity: expected all 40 images, found 30 missing, the first is image 10"):
        stream.similarity()
    with pytest.raises(ValueError, match="merge: expected each image once, found image 9 in both"):
        stream.merge(STREAMS["cos"](probe.activations, side).update(9, probe.scores[9:10]))
    with pytest.raises(ValueError, match="merge: expected a stream of the same images, neurons and concepts"):
        stream.merge(STREAMS["cos"](probe.activations[:, :3], side))
    with pytest.raises(ValueError, match=r"activations: expected shape \(40, any\), none of them 0, found \(39, 7\)"):
        STREAMS["cos"](probe.activations[1:], side)
    with pytest.raises(ValueError, match="concept side: expected at least one image, found none"):
        ConceptMoments().side()
    with pytest.raises(ValueError, match="merge: expected 9 concepts, found 2"):
        ConceptMoments().update(probe.scores).merge(ConceptMoments().update(probe.scores[:, :2]))
