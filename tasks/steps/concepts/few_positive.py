"""What the concepts page says of neurons with few positive activations."""

from collections.abc import Iterator

import numpy as np

from storage.stages import open_finished
from storage.stores import Store
from tasks.report.findings import Finding
from tasks.steps.concepts.plan import Monitored


def few_positive_findings(store: Store, answer: Monitored) -> Iterator[Finding]:
    """Yield a sentence for each layer and detector at the last snapshot where ties decide top images of neurons."""
    for seen in (one for one in answer.seen if one.snapshot == len(answer.responses) - 1):
        detected = open_finished(store, seen.neurons.inputs["detected"])
        if "few_positive" not in detected.layout.arrays:
            continue
        few = np.asarray(detected.read("few_positive"), np.bool_) & ~np.asarray(detected.read("dead"), np.bool_)
        if few.any():
            yield Finding(
                "Ties",
                f"{answer.network}, seed {answer.seed}, layer {seen.layer}, {seen.view.name}: {int(few.sum()):,} of "
                f"{len(few):,} neurons have fewer distinct positive activations than the detector reads images. Ties "
                "decide their top images.",
            )
