"""The retraining stage: the margins of the queries after new trainings on random subsets.

In the same order a training has the network's own seed, and examples outside the subset have weight 0. Then the margins
differ from the network's own by these examples alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Counterfactual, Lds
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
from tasks.steps.tracing.measured import measured_unit
from tasks.steps.tracing.queries import count_queries, query_inputs, query_logits, target_classes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.training.loop import Trainer

VERSION = 1


SAME = "same"  # order of the examples; without it other seeds
MEASURED = {
    "measure": "margin",
    "target": "given",
    "unit": None,
}  # what is measured unless the parameters say otherwise


def retraining_spec(queries: StageSpec, training: StageSpec, asked: Lds) -> StageSpec:
    """Return the spec of a network's retrainings for its queries, from other seeds."""
    return _spec(queries, training, asked.model_dump(mode="json", exclude={"order"}))


def same_order_spec(queries: StageSpec, training: StageSpec, asked: Lds) -> StageSpec:
    """Return the spec of a network's retrainings in the same order, one for each subset."""
    settings = {**asked.model_dump(mode="json", exclude={"order"}), "retrainings": 1}
    return _spec(queries, training, {**settings, "order": SAME})


def left_out_spec(queries: StageSpec, training: StageSpec, asked: Counterfactual) -> StageSpec:
    """Return the spec of the retrainings that test derivatives: in the same order, without a few examples."""
    wanted = asked.model_dump(mode="json", include={*MEASURED})
    changed = {name: value for name, value in wanted.items() if value != MEASURED[name]}
    if asked.unit is not None:
        changed.pop("target", None)
    share = 1 - asked.left_out
    settings = {"subsets": asked.retrainings, "share": share, "retrainings": 1, "order": SAME}
    return _spec(queries, training, {**settings, **changed})


def _spec(queries: StageSpec, training: StageSpec, settings: Document) -> StageSpec:
    """Return the spec of retrainings with given settings."""
    parameters: Document = {
        **settings,
        "network": training.parameters["network"],
        "train": {k: v for k, v in training.parameters["train"].items() if k != "record"},
        "seed": training.parameters["seed"],
    }
    inputs = {**training.inputs, "queries": queries}
    return RETRAINING.spec(
        parameters, inputs, digests=training.digests, place=dict(training.place), label=training.label
    )


def subset(spec: StageSpec, index: int, n: int) -> NDArray[np.int64]:
    """Return the positions of subset `index` of n samples, rising: a function of the run's seed.

    A subset has one sample at least, and leaves one out at least if there are two.
    """
    rng = np.random.default_rng([int(spec.parameters["seed"]), index])
    size = max(1, min(round(float(spec.parameters["share"]) * n), n - 1))
    return np.sort(rng.permutation(n)[:size]).astype(np.int64)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per retraining; those of one subset come together."""
    count = int(spec.parameters["subsets"]) * int(spec.parameters["retrainings"])
    n = int(open_finished(store, spec.inputs["queries"]).summary["queries"])
    return Layout(count, {"margin": ArrayLayout((count, n), "float64", ("retraining", "query"), 1, 1)})


def _partition(work: Work, number: int) -> None:
    """Train on a subset, and measure the queries."""
    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    index, repeat = divmod(number, int(spec.parameters["retrainings"]))
    trainer, n_kept = _opened(work, index, repeat)
    trainer.run(0, trainer.samples.batches.per_epoch * training_of(spec).epochs)
    queries = spec.inputs["queries"]
    inputs = query_inputs(stage.store, queries, device)
    values = _measured(trainer.model.eval(), stage.store, spec, inputs)
    with stage.partition(number) as part:
        part.write("margin", values[None])
        part.numbers.update(measured(subset=index, repeat=repeat, examples=n_kept))


def _measured(model: nn.Module, store: Store, spec: StageSpec, inputs: Tensor) -> NDArray[np.float64]:
    """Return the measure of each query (Q,) after a training."""
    import torch

    from tasks.tracing.evaluation import margins
    from tasks.tracing.measures import MEASURES, watched_unit

    if (unit := measured_unit(spec)) is not None:
        with watched_unit(model, *unit) as found:
            query_logits(model, inputs)
        values: NDArray[np.float64] = torch.cat(found).double().cpu().numpy()
        return values
    target = str(spec.parameters.get("target", MEASURED["target"]))
    classes, logits = target_classes(store, spec.inputs["queries"], target), query_logits(model, inputs)
    measure = str(spec.parameters.get("measure", MEASURED["measure"]))
    if measure == "margin":
        return margins(logits, classes)
    return MEASURES[measure](torch.from_numpy(logits).double(), torch.from_numpy(classes)).numpy()


def _opened(work: Work, index: int, repeat: int) -> tuple[Trainer, int]:
    """Return the training on a subset, and the number of its examples."""
    import torch

    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    seed, n = int(spec.parameters["seed"]), _count(stage.store, spec)
    chosen = subset(spec, index, n)
    if spec.parameters.get("order") == SAME:
        weights = torch.zeros(n)
        weights[torch.from_numpy(chosen)] = 1.0
        return replace(open_trainer(stage.store, spec, device, MEMORY_SAMPLES), weights=weights), len(chosen)
    words = np.random.SeedSequence([seed, index, repeat]).generate_state(1)
    return open_trainer(stage.store, spec, device, MEMORY_SAMPLES, seed=int(words[0]), subset=chosen), len(chosen)


def _count(store: Store, spec: StageSpec) -> int:
    """Return the number of training examples."""
    return len(positions(store, spec.inputs["data"].path, training_of(spec).split))


def _size(spec: StageSpec, survey: Survey) -> Size:
    if spec.parameters.get("order") != SAME:  # the same order keeps the batches
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
