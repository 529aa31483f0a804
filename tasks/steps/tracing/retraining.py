"""The retraining stage: the margins of the queries after new trainings on random subsets."""

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Lds
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, labels_of, open_batches, training_of
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device
from tasks.steps.common.smallest_batch import check_smallest_batch
from tasks.steps.common.trainer import open_trainer
from tasks.steps.tracing.queries import count_queries, query_inputs, query_logits

VERSION = 1


def retraining_spec(queries: StageSpec, training: StageSpec, asked: Lds) -> StageSpec:
    """Return the spec of a network's retrainings for its queries."""
    parameters: Document = {
        **asked.model_dump(mode="json"),
        "network": training.parameters["network"],
        "train": {k: v for k, v in training.parameters["train"].items() if k != "record"},
        "seed": training.parameters["seed"],
    }
    inputs = {"queries": queries, "data": training.inputs["data"]}
    return RETRAINING.spec(
        parameters, inputs, digests=training.digests, place=dict(training.place), label=training.label
    )


def subset(spec: StageSpec, index: int, n: int) -> NDArray[np.int64]:
    """Return the positions of subset `index` of n samples, rising: a function of the run's seed."""
    rng = np.random.default_rng([int(spec.parameters["seed"]), index])
    size = max(1, round(float(spec.parameters["share"]) * n))
    return np.sort(rng.permutation(n)[:size]).astype(np.int64)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per retraining; those of one subset come together."""
    count = int(spec.parameters["subsets"]) * int(spec.parameters["retrainings"])
    n = int(open_finished(store, spec.inputs["queries"]).summary["queries"])
    return Layout(count, {"margin": ArrayLayout((count, n), "float64", ("retraining", "query"), 1, 1)})


def _partition(work: Work, number: int) -> None:
    """Train on a subset with a separate seed, and measure the queries' margins."""
    from tasks.tracing.evaluation import margins

    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    index, repeat = divmod(number, int(spec.parameters["retrainings"]))
    train = training_of(spec)
    n = len(positions(stage.store, spec.inputs["data"].path, train.split))
    words = np.random.SeedSequence([int(spec.parameters["seed"]), index, repeat]).generate_state(1)
    chosen = subset(spec, index, n)
    trainer = open_trainer(stage.store, spec, device, MEMORY_SAMPLES, seed=int(words[0]), subset=chosen)
    trainer.run(0, trainer.samples.batches.per_epoch * train.epochs)
    queries = spec.inputs["queries"]
    inputs, labels = query_inputs(stage.store, queries, device), open_finished(stage.store, queries).read("label")
    logits = query_logits(trainer.model.eval(), inputs)
    with stage.partition(number) as part:
        part.write("margin", margins(logits, labels.astype(np.int64))[None])
        part.numbers.update(measured(subset=index, repeat=repeat, examples=len(chosen)))


def _size(spec: StageSpec, survey: Survey) -> Size:
    _check_subsets(spec, survey)
    count = int(spec.parameters["subsets"]) * int(spec.parameters["retrainings"])
    return Size(8 * count * count_queries(spec.inputs["queries"], survey), 2 * MEMORY_SAMPLES)


def _check_subsets(spec: StageSpec, survey: Survey) -> None:
    """Raise ValueError where a subset, or a class in it, has too few samples for the training's batches."""
    train, seed = training_of(spec), int(spec.parameters["seed"])
    labels = labels_of(survey.data(spec.inputs["data"]).split(train.split))
    drawn = [np.sort(labels[subset(spec, i, len(labels))]) for i in range(int(spec.parameters["subsets"]))]
    check_smallest_batch(spec, survey, subsets=drawn)
    for chosen in drawn:
        try:
            open_batches(train, chosen, seed)
        except ValueError as error:
            share = spec.parameters["share"]
            raise ValueError(
                f"tracing.evaluation.lds.share: expected enough samples for the batches of {spec.label}, found "
                f"{len(chosen)}, {share:g} of {len(labels)}: {error}"
            ) from error


RETRAINING = Step("retraining", VERSION, _layout, _partition, _size, network=True)
