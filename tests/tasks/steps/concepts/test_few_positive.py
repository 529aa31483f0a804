"""Neurons whose top images ties decide are counted on the page."""

from typing import TYPE_CHECKING

import numpy as np

from storage.stages import open_finished
from tasks.steps.concepts.few_positive import few_positive_findings
from tasks.steps.concepts.responses import read_pooled

if TYPE_CHECKING:
    from tests.conftest import Run


def test_ties_are_counted_by_layer_at_the_last_snapshot(probed_run: "Run") -> None:
    (answer,) = probed_run.plan.answers["concepts"]
    expected = []
    for seen in answer.seen:
        detected = seen.neurons.inputs["detected"]
        if seen.snapshot != len(answer.responses) - 1 or detected.stage != "clip-dissect":
            continue
        responses = open_finished(probed_run.job.store, answer.responses[seen.snapshot][seen.layer])
        activations = np.asarray(read_pooled(responses, seen.layer), np.float64)
        top = int(detected.parameters["settings"]["top_k"])
        distinct = [len(np.unique(column[column > 0])) for column in activations.T]
        live = activations.max(axis=0) > activations.min(axis=0)
        few = int((np.array(distinct) < top)[live].sum())
        if few:
            expected.append(f"layer {seen.layer}, {seen.view.name}: {few} of {activations.shape[1]} neurons have fewer")
    found = [finding.text for finding in few_positive_findings(probed_run.job.store, answer)]
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text
