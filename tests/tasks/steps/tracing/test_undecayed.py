"""Updates less weight decay, against the plain loop's own decay, whatever segment they are read from."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from storage.updates.archives import Segment
from tasks.recording.sources import recorded_source
from tasks.steps.tracing import undecayed as module
from tasks.steps.tracing.undecayed import earlier, undecayed
from tests.plans import traces
from tests.tasks.steps.tracing import conftest
from tests.tasks.steps.tracing.conftest import GAPS

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.steps.tracing.conftest import Plain

Tree = dict[str, Any]  # Any: YAML
SGD = {"kind": "sgd", "lr": 0.02, "weight_decay": 0.05}


@pytest.mark.parametrize(
    ("settings", "record"),
    [
        ({"momentum": 0.9}, {}),
        ({"momentum": 0.9, "nesterov": True}, {}),
        ({}, GAPS),
        ({"momentum": 0.9}, GAPS),
        ({"momentum": 0.9, "weight_decay": 0.0}, {}),
    ],
)
def test_every_segment_gives_the_updates_less_decay(
    mlp: Tree,
    new_run: "Callable[[Tree], Run]",
    retrain: "Callable[..., Plain]",
    monkeypatch: pytest.MonkeyPatch,
    settings: Tree,
    record: Tree,
) -> None:
    optimizer = SGD | settings
    train = {"batches": {"size": 3}, "optimizer": optimizer, "checkpoint_every": 3, "record": record}
    mlp["networks"]["net"] |= {"model": f"{conftest.__name__}:frozen", "arguments": {"bias_too": False}}
    mlp["networks"]["net"]["train"] |= train
    run = new_run(mlp).finish()
    training = traces(run.plan)[0].training
    plain, source = retrain(run, training), recorded_source(run.job.store, training)
    whole = not record or not settings
    monkeypatch.setattr(module, "REACH", 0.5)  # seven steps: three segments of three before a fourth
    assert len(earlier(source.segments(), source.segments()[4], 0.9)) == 3
    monkeypatch.undo()
    for layer in source.layers:
        for segment in source.segments():
            for block, updates, biases in undecayed(source, layer, segment, optimizer):
                assert biases is not None
                for part, found in (("weight", updates), ("bias", biases)):
                    name = f"{layer}.{part}"
                    moves = plain.weights[name].diff(dim=0)
                    less = moves - plain.decays[name]
                    for row, step in enumerate(block.steps.tolist()):
                        expected = (less if whole or step < 4 else moves)[step].numpy()
                        np.testing.assert_allclose(found[row].numpy(), expected, rtol=0, atol=2e-8)


def test_as_many_segments_are_read_before_as_are_felt() -> None:
    segments = [Segment(number, 100 * number, 100 * number + 100) for number in range(9)]
    assert earlier(segments, segments[8], 0.0) == ()
    assert earlier(segments, segments[0], 0.9) == ()
    assert [one.number for one in earlier(segments, segments[8], 0.9)] == [5, 6, 7]  # 0.9 ** 263 = 1e-12
    assert [one.number for one in earlier(segments, segments[8], 0.99)] == list(range(8))
