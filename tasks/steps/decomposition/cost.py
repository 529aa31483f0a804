"""The head-cost stage: the savings of the decomposed head, and their share of the whole network."""

from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished, read_marker
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import first_input
from tasks.steps.common.networks import load_network
from tasks.steps.common.trials import example_input
from tasks.steps.decomposition.features import chosen_head, open_head
from tasks.steps.decomposition.histogram import read_sets

VERSION = 1
BATCHES = (1, 32, 256)


def cost_spec(features: StageSpec, histogram: StageSpec, k2: int) -> StageSpec:
    """Return the spec of the costs of the full and the decomposed head."""
    inputs = {"features": features, "sets": histogram}
    return COST.spec({"k2": k2}, inputs, label=f"{features.label} k2 {k2}")


def read_times(store: Store, spec: StageSpec) -> list[Document]:
    """Return batch, dense_ms and decomposed_ms of each measurement; times are not reproducible results."""
    times: list[Document] = read_marker(store, spec.path, 0)["numbers"]["times"]
    return times


def _partition(work: Work, number: int) -> None:
    """Count multiply-adds and measure times, on the CPU."""
    import torch

    from tasks.decomposition.cost import time_heads
    from tasks.decomposition.linear import DecomposedLinear

    stage, cpu = work.stage, torch.device("cpu")
    features = stage.spec.inputs["features"]
    with stage.partition(number) as part:
        head = open_head(stage.store, features, cpu)
        sets = read_sets(stage.store, stage.spec.inputs["sets"], int(stage.spec.parameters["k2"]))
        decomposed = DecomposedLinear.from_linear(head, sets).eval()
        times = []
        for batch in BATCHES:
            dense_ms, decomposed_ms = time_heads([head, decomposed], batch, head.in_features)
            times.append({"batch": batch, "dense_ms": dense_ms, "decomposed_ms": decomposed_ms})
        part.numbers.update(measured(times=times))


def _summary(stage: Stage) -> Document:
    """Return multiply-adds and depth."""
    import torch

    from tasks.decomposition.cost import count_multiply_adds

    features = stage.spec.inputs["features"]
    head = open_head(stage.store, features, torch.device("cpu"))
    model = load_network(stage.store, features, torch.device("cpu"))
    example = example_input(tuple(first_input(stage.store, features).shape[1:]))
    cost = count_multiply_adds(model, head, example)
    decomposed = head.out_features * int(stage.spec.parameters["k2"])
    assert open_finished(stage.store, features).summary["features"] == head.in_features
    return {"total": cost.total, "head": cost.head, "decomposed": decomposed, "depth": cost.depth}


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _size(spec: StageSpec, survey: Survey) -> Size:
    head = chosen_head(spec, survey, "k2")
    return Size(0, 16 * head.features * head.outputs + 6 * 4 * head.largest)


COST = Step("head-cost", VERSION, _layout, _partition, _size, summary=_summary, network=True)
