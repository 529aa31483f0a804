"""The retraining stage: the network trained anew on random subsets, and how it then answers the queries."""

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Lds
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import Step, Work, measured
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device
from tasks.steps.common.trainer import open_trainer
from tasks.steps.common.training import MEMORY_SAMPLES
from tasks.steps.tracing.queries import query_inputs, query_logits
from tasks.tracing.evaluation import margins

VERSION = 1


def retraining_spec(queries: StageSpec, training: StageSpec, asked: Lds) -> StageSpec:
    """Return the spec of the retrainings of a network for its queries."""
    parameters: Document = {
        **asked.model_dump(mode="json"),
        "network": training.parameters["network"],
        "train": {k: v for k, v in training.parameters["train"].items() if k != "record"},
        "seed": training.parameters["seed"],
    }
    inputs = {"queries": queries, "data": training.inputs["data"]}
    return StageSpec("retraining", VERSION, parameters, inputs, training.digests, training.place, training.label)


def subset(spec: StageSpec, index: int, n: int) -> NDArray[np.int64]:
    """Return the positions of subset `index` of n samples, rising: a function of the run's seed."""
    rng = np.random.default_rng([int(spec.parameters["seed"]), index])
    size = max(1, round(float(spec.parameters["share"]) * n))
    return np.sort(rng.permutation(n)[:size]).astype(np.int64)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """One partition per retraining: all of one subset, then those of the next."""
    count = int(spec.parameters["subsets"]) * int(spec.parameters["retrainings"])
    n = int(open_finished(store, spec.inputs["queries"]).summary["queries"])
    return Layout(count, {"margin": ArrayLayout((count, n), "float64", ("retraining", "query"), 1, 1)})


def _partition(work: Work, number: int) -> None:
    """Train on a subset from a seed of its own and measure the queries' margins."""
    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    index, repeat = divmod(number, int(spec.parameters["retrainings"]))
    train = spec.place["train"]
    n = len(positions(stage.store, spec.inputs["data"].path, str(train["split"])))
    words = np.random.SeedSequence([int(spec.parameters["seed"]), index, repeat]).generate_state(1)
    chosen = subset(spec, index, n)
    trainer = open_trainer(stage.store, spec, device, MEMORY_SAMPLES, seed=int(words[0]), subset=chosen)
    trainer.run(0, trainer.batches.per_epoch * int(train["epochs"]))
    queries = spec.inputs["queries"]
    inputs, labels = query_inputs(stage.store, queries, device), open_finished(stage.store, queries).read("label")
    logits = query_logits(trainer.model.eval(), inputs)
    with stage.partition(number) as part:
        part.write("margin", margins(logits, labels.astype(np.int64))[None])
        part.numbers.update(measured(subset=index, repeat=repeat, examples=len(chosen)))


RETRAINING = Step(_layout, _partition, network=True)
