"""The kind of archive that a training records: the first that fits, and the same to the end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.recording import update_source
from tasks.recording.archives import ARCHIVES, Archive, Contents
from tasks.recording.dense import DenseSource
from tasks.recording.sizes import dense_bytes
from tasks.recording.writers import Recording, UpdateWriter, dense_writer
from tasks.steps.common.training import TRAINING
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def test_auto_records_the_first_kind_that_fits_in_every_segment(
    tiny_tree: Tree, new_run: "Callable[[Tree], Run]", monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def begin(recording: Recording) -> UpdateWriter:
        begun.append(recording.segment.folder)
        return dense_writer(recording)

    def refuse(recording: Recording) -> UpdateWriter:
        raise AssertionError("this kind does not fit")

    def size(contents: Contents, steps: int) -> int:
        # Once the training goes on, the kind that did not fit would: the archive must stay of one kind.
        return 0 if begun else 10**15

    for kind in list(ARCHIVES):  # a removed kind would come back at the end, and `auto` goes by the order
        monkeypatch.setitem(ARCHIVES, kind, Archive(refuse, DenseSource, size))
    monkeypatch.setitem(
        ARCHIVES, "small", Archive(begin, DenseSource, lambda contents, steps: dense_bytes(contents.shapes, steps))
    )
    tiny_tree["networks"]["small"]["train"]["record"] = {}
    tiny_tree.pop("interpretation")
    run = new_run(tiny_tree)
    for wave in waves(run.plan.stages):
        complete(run.job, STEPS[wave[0].stage], wave)
    (spec,) = [one for one in run.plan.stages if one.stage == TRAINING.kind]
    source = update_source(open_finished(run.job.store, spec))
    segments = source.segments()
    assert len(segments) > 1
    assert [segment.kind for segment in segments] == ["small"] * len(segments)
    assert [segment.folder for segment in segments] == begun
    layer = source.layers[0]
    total = torch.stack([b.dense().sum(0) for s in segments for b in source.blocks(s, [layer])]).sum(0)
    np.testing.assert_allclose(total, source.final(layer) - source.initial(layer), atol=1e-6)
