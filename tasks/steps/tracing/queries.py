"""The queries stage: the samples to explain, and the network's logits for them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Network
from configs.tracing import Queries
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.networks import choose_device, load_network, network_identity, preprocessing_of
from tasks.steps.common.pictures import THUMBNAIL, shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.common.trials import check_logits, spread
from tasks.steps.tracing.choice import SAME, check_samples, query_places

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VERSION = 2
FORWARD = 64  # number of queries in one forward pass


def queries_spec(
    name: str,
    network: Network,
    manifest: StageSpec,
    training: StageSpec,
    asked: Queries,
    same: StageSpec | None = None,
) -> StageSpec:
    """Return the spec of a network's queries from a split.

    Parameters
    ----------
    same : the queries of another network, for which the choice depends on its answers
    """
    parameters, place, digests = network_identity(name, network, training)
    chosen: Document = {"network": parameters, "split": asked.split}
    chosen |= {"count": asked.count} if asked.samples is None else {"samples": list(asked.samples)}
    inputs = {"data": manifest, "network": training}
    if asked.wrong and same is not None:
        inputs[SAME] = same
    elif asked.wrong:
        chosen["wrong"] = True
    return QUERIES.spec(chosen, inputs, digests=digests, place=place, label=f"{name} {asked.split}")


def query_inputs(store: Store, spec: StageSpec, device: torch.device) -> Tensor:
    """Return the queries as network inputs, (Q, C, h, w) float32."""
    return _inputs(store, spec).to(device)


def query_logits(model: nn.Module, inputs: Tensor) -> NDArray[np.float32]:
    """Return the logits (Q, C) float32 of a network in evaluation mode."""
    import torch

    with torch.inference_mode():
        parts = [model(inputs[start : start + FORWARD].clone()) for start in range(0, len(inputs), FORWARD)]
        found: NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()
        return found


def target_classes(store: Store, queries: StageSpec, target: str) -> NDArray[np.int64]:
    """Return the class of each query's measure, (Q,): its given label, or the predicted class."""
    stage = open_finished(store, queries)
    found: NDArray[np.int64] = stage.read("label").astype(np.int64)
    return stage.read("logits").argmax(1).astype(np.int64) if target == "predicted" else found


@lru_cache(maxsize=1)
def _inputs(store: Store, spec: StageSpec) -> Tensor:
    """Return the queries' inputs; this process keeps them for the next partition."""
    chosen, _, _ = query_places(store, spec)
    return read_positions(store, spec, str(spec.parameters["split"]), chosen).contiguous()


def _layout(store: Store, spec: StageSpec) -> Layout:
    import torch

    n = len(query_places(store, spec)[0])
    model = load_network(store, spec, torch.device("cpu"))
    inputs = query_inputs(store, spec, torch.device("cpu"))
    check_logits(model, inputs[torch.from_numpy(spread(len(inputs)))])
    n_outputs, inputs = query_logits(model, inputs[:1]).shape[1], inputs[:1]
    size = shown_images(inputs, preprocessing_of(spec.parameters["network"])).shape[1:]

    def array(shape: tuple[int, ...], dtype: str, *axes: str) -> ArrayLayout:
        return ArrayLayout((n, *shape), dtype, ("query", *axes), n, n)

    arrays = {
        "sample_id": array((), "int64"),
        "label": array((), "int64"),
        "logits": array((n_outputs,), "float32", "class"),
        "image": array(size, "uint8", "row", "column", "colour"),
    }
    return Layout(1, arrays)


def _partition(work: Work, number: int) -> None:
    """Run the network over the queries."""
    stage, device = work.stage, choose_device(work.device)
    _, ids, labels = query_places(stage.store, stage.spec)
    model, inputs = load_network(stage.store, stage.spec, device), query_inputs(stage.store, stage.spec, device)
    logits = query_logits(model, inputs)
    with stage.partition(number) as part:
        part.write("sample_id", ids)
        part.write("label", labels)
        part.write("logits", logits)
        part.write("image", shown_images(inputs.cpu(), preprocessing_of(stage.spec.parameters["network"])))
        part.numbers.update(measured(queries=len(ids)))


def _summary(stage: Stage) -> Document:
    names = open_finished(stage.store, stage.spec.inputs["data"]).summary["class_names"]
    return {"queries": stage.layout.arrays["label"].shape[0], "class_names": names}


def count_queries(spec: StageSpec, survey: Survey) -> int:
    """Return the number of queries, after a check that their split exists."""
    split = survey.data(spec.inputs["data"]).count(spec.parameters["split"])
    samples = spec.parameters.get("samples")
    return min(int(spec.parameters["count"]), split) if samples is None else len(samples)


def _size(spec: StageSpec, survey: Survey) -> Size:
    check_samples(spec, survey)
    n_bytes = count_queries(spec, survey) * 3 * THUMBNAIL
    return Size(n_bytes, n_bytes * 8 + MEMORY_SAMPLES)


QUERIES = Step("queries", VERSION, _layout, _partition, _size, summary=_summary, network=True)
