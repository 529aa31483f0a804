"""The queries stage: which samples, and what the network says of them."""

from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits

from storage.stages import open_finished
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.steps.tracing.conftest import Plain


def test_queries_are_the_first_samples_of_spread_classes(traced_run: "Run", plain: "Plain") -> None:
    stage = open_finished(traced_run.job.store, traces(traced_run.plan)[0].queries)
    ids, labels = np.asarray(stage.read("sample_id"), np.int64), stage.read("label")
    manifest = open_finished(traced_run.job.store, traced_run.plan.shared.manifests["digits"])
    assert labels.tolist() == [0, 2, 5, 7]  # class number floor(i * 10 / 4)
    assert manifest.summary["splits"]["val"] == {"labels": list(range(10)), "counts": [2] * 10}
    assert not set(ids.tolist()) & set(plain.ids.tolist())
    np.testing.assert_allclose(stage.read("logits").astype(np.float64), plain.logits(ids), rtol=1e-4, atol=1e-5)
    assert stage.summary == {"queries": 4, "class_names": manifest.summary["class_names"]}


def test_queries_are_kept_as_they_look(traced_run: "Run") -> None:
    stage = open_finished(traced_run.job.store, traces(traced_run.plan)[0].queries)
    shown = np.rint(load_digits().images[stage.read("sample_id")] * 255 / 16).astype(np.uint8)
    images = stage.read("image")
    assert images.shape == (4, 8, 8, 3)
    for colour in range(3):
        np.testing.assert_array_equal(images[..., colour], shown)


def test_the_permuted_network_is_asked_the_same(traced_run: "Run") -> None:
    trace = traces(traced_run.plan)[0]
    assert trace.permuted is not None
    one, other = (open_finished(traced_run.job.store, t.queries) for t in (trace, trace.permuted))
    for name in ("sample_id", "label", "image"):
        np.testing.assert_array_equal(one.read(name), other.read(name))
    assert not np.allclose(one.read("logits"), other.read("logits"))
