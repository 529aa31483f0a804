"""Sizes: bounds from shapes alone that the stages then keep."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from torch import nn

from configs.cluster import Cluster
from flows.plan import make_plan
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.engine.step import Size
from tasks.steps.common import networks, survey
from tasks.steps.plan import stage_sizes

if TYPE_CHECKING:
    from storage.stores import Store
    from tests.conftest import Run

KEPT = ("activations", "selection", "features", "evaluation")


def sizes_of(run: "Run", store: "Store | None" = None) -> dict[str, Size]:
    """Return the sizes of all stages of a run."""
    return stage_sizes(Cluster(kind="serial"), store, run.plan.stages)


def test_arrays_are_as_large_as_was_said(finished_run: "Run") -> None:
    sizes = sizes_of(finished_run)
    assert set(sizes) == {spec.path for spec in finished_run.plan.stages}
    for spec in finished_run.plan.stages:
        if spec.stage in KEPT:
            stage = open_finished(finished_run.job.store, spec)
            layout = stage.layout.arrays
            total = sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in layout.values())
            assert stage.layout.n_bytes == total
            assert sizes[spec.path].written <= total <= 1.2 * sizes[spec.path].written, spec.title


def test_files_are_no_larger_than_was_said(finished_run: "Run") -> None:
    sizes = sizes_of(finished_run)
    training = next(iter(finished_run.plan.shared.trainings.values()))
    stage = open_finished(finished_run.job.store, training)
    state = sum(4 * a for a in (36, 4, 4, 4, 4, 288, 8, 8, 8, 8, 576, 8, 8, 8, 8, 80, 10)) + 3 * 8
    # weights without headers: four checkpoints and the final file
    assert sizes[training.path].written == 5 * state
    written = sum(len(stage.read_file(name)) for name in stage.note["files"] if name.endswith("safetensors"))
    assert 1 < written / sizes[training.path].written < 2


@pytest.mark.parametrize("kind", ["finished_run", "decomposed_run", "traced_run"])
def test_a_plan_builds_each_network_once_for_each_data_set(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Run = request.getfixturevalue(kind)
    built: Counter[str] = Counter()

    def counted(spec: StageSpec) -> tuple[nn.Module, str]:
        built[survey.network_id(spec)] += 1
        return networks.build_network(spec)

    monkeypatch.setattr(survey, "build_network", counted)
    config = run.config.model_copy(update={"seeds": (0, 1)})
    stage_sizes(Cluster(kind="serial"), None, make_plan(config).stages)
    assert built
    assert set(built.values()) == {1}


def test_a_finished_manifest_gives_the_same_sizes(finished_run: "Run") -> None:
    assert sizes_of(finished_run, finished_run.job.store) == sizes_of(finished_run)
