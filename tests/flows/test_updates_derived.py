"""Aggregate, index and preview of a network trained elsewhere, against sums of the loop's own updates in float64."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.stages import open_finished
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.index_basis import held_out, layers_of
from tests import own_loop
from tests.flows.command import layerlore
from tests.own_loop import OwnLoop
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("wide")
NewRun = Callable[[dict[str, Any]], "Run"]  # Any: YAML
REFERENCES, HELD = 12, 4


@pytest.fixture(scope="module", params=["dense", "replay"])
def derived(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_run: NewRun
) -> tuple[OwnLoop, "Run"]:
    """A recorded loop, and a finished run with an index and an aggregate of it; not to be changed."""
    folder = tmp_path_factory.mktemp(f"derived-{request.param}")
    loop = own_loop.record(folder / "loop", kind=request.param)
    more = {"program": "tests.own_loop:program"} if request.param == "replay" else {}
    tree = own_loop.config(folder / "store", loop.url, **more)
    index = {"references": REFERENCES, "held_out": HELD, "coefficients": 16}
    tree["tracing"] |= {"derive": {"aggregate": {"groups": 3}, "index": index}}
    return loop, new_run(tree).finish()


def test_the_aggregate_has_the_sums_of_the_loop(derived: tuple[OwnLoop, "Run"]) -> None:
    loop, run = derived
    trace = traces(run.plan)[0]
    assert trace.aggregate is not None
    stage, labels = open_finished(run.job.store, trace.aggregate), own_loop.samples("train").set_index("id")
    groups = stage.summary["groups"]
    epochs = open_archive(run.job.store, trace.training).ledger["epoch"].tolist()
    for layer in ("0", "4"):
        moves = loop.updates(f"{layer}.weight").numpy()
        expected = np.zeros((max(epochs) + 1, len(groups) + 1, *moves.shape[1:]))
        for t, members in enumerate(loop.batches):
            for example in members.tolist():
                label = labels.loc[example, "label_given"]
                group = next(number for number, group in enumerate(groups) if label in group)
                expected[epochs[t], group] += moves[t] / len(members)
        np.testing.assert_allclose(stage.read(f"sum.{layer}").astype(np.float64), expected, atol=1e-12)


def test_the_index_gives_the_gammas_of_its_references(derived: tuple[OwnLoop, "Run"]) -> None:
    loop, run = derived
    trace, store = traces(run.plan)[0], run.job.store
    assert trace.index is not None
    stage, basis = open_finished(store, trace.index), open_finished(store, trace.index.inputs["basis"])
    assert held_out(REFERENCES + HELD, HELD).sum() == HELD
    inputs = torch.from_numpy(basis.read("input"))
    model = own_loop.build()
    model.load_state_dict(loop.states[-1])
    model.double().eval()
    seen = model[:4](inputs.double()).detach()
    z = seen @ loop.states[-1]["4.weight"].double().T
    exact = torch.stack([(z * (seen @ change.T)).sum(1) for change in loop.updates("4.weight")]).numpy()
    (layer,) = (
        one
        for one in layers_of(trace.index, open_archive(store, trace.training), store, inputs)
        if one.target.name == "4"
    )
    place = layer.directions.products(layer.directions) @ basis.read("basis.4").astype(np.float64)
    made = stage.read("coefficient.4").astype(np.float64) @ place.T
    np.testing.assert_allclose(made, exact, rtol=2e-3, atol=2e-3 * np.abs(exact).max())


def test_a_preview_is_near_the_explanation(derived: tuple[OwnLoop, "Run"]) -> None:
    _, run = derived
    sample = str(own_loop.samples("val")["id"].iloc[0])
    result = layerlore("explain", str(run.config.store), "--sample", sample, "--preview", "--layer", "4")
    assert result.exit_code == 0, result.output
    assert "preview" in result.stdout
    assert "layer 4: from the index" in result.stdout
    whole = layerlore("explain", str(run.config.store), "--sample", sample, "--layer", "4")
    assert whole.exit_code == 0, whole.output
    parts = [
        next(line.split()[:2] for line in one.stdout.splitlines() if line.split()[:1] == ["4"])
        for one in (result, whole)
    ]
    assert parts[0] == parts[1]  # the part of the initial weights is exact in both
