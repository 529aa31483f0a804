"""The pruning stage: which weights of a finished training remain, after those of the stage before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_steps
from tasks.steps.common.networks import WEIGHTS
from tasks.steps.common.survey import state_bytes

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
MASKS = "masks.safetensors"


def pruning_spec(training: StageSpec, earlier: StageSpec | None, fraction: float, *, rewind: int) -> StageSpec:
    """Return the spec of the pruning of a training's last weights.

    Parameters
    ----------
    training : the training
    earlier : the pruning before it, whose masks the training had; None at the first stage
    fraction : share of the remaining weights to remove
    rewind : step of the chain's first training whose weights the next training starts from, for the check of the plan
    """
    inputs = {"training": training} | ({} if earlier is None else {"masks": earlier})
    place = {"network": training.place["network"], "rewind": rewind}
    label = f"{training.label} pruned by {fraction:.0%}"
    return PRUNING.spec({"fraction": fraction}, inputs, place=place, label=label)


def read_masks(store: Store, pruning: StageSpec) -> dict[str, Tensor]:
    """Return the masks of a finished pruning, bool by parameter name, True where a weight remains."""
    from tasks.io.tensors import unpack_tensors

    return unpack_tensors(open_finished(store, pruning).read_file(MASKS))


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Prune the weights of convolutions and linear layers, all together."""
    from tasks.io.networks import build_model
    from tasks.io.tensors import pack_tensors, unpack_tensors
    from tasks.training.lottery import prunable, prune

    stage, spec = work.stage, work.stage.spec
    training, network = spec.inputs["training"], spec.inputs["training"].parameters["network"]
    weights = unpack_tensors(open_finished(stage.store, training).read_file(WEIGHTS))
    earlier = read_masks(stage.store, spec.inputs["masks"]) if "masks" in spec.inputs else None
    names = prunable(build_model(network["model"], network["arguments"], 0))
    masks = prune({name: weights[name] for name in names}, earlier, float(spec.parameters["fraction"]))
    left = {name: int(mask.sum()) for name, mask in masks.items()}
    for name, count in left.items():
        if not count:
            raise ValueError(
                f"networks.{spec.place['network']}.train.lottery: expected weights in every layer, found none left in "
                f"{name} after {spec.label}; lower `fraction` or `stages`"
            )
    with stage.partition(number) as part:
        part.write_file(MASKS, pack_tensors(masks))
        total = sum(mask.numel() for mask in masks.values())
        part.numbers.update(measured(left=left, remaining=sum(left.values()), weights=total))


def _summary(stage: Stage) -> Document:
    """Return how many weights remain, of how many, and how many in each layer."""
    record = stage.marker(0)
    assert record is not None
    return {key: record["numbers"][key] for key in ("remaining", "weights", "left")}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size, after a check of the step to rewind to and of the network."""
    from tasks.training.lottery import prunable

    training, name = spec.inputs["training"], spec.place["network"]
    _, total = training_steps(training, survey.data(training.inputs["data"]).summary)
    if spec.place["rewind"] > total:
        raise ValueError(
            f"networks.{name}.train.lottery.rewind: expected at most {total}, the steps of the training, found "
            f"{spec.place['rewind']}; lower it"
        )
    blank = survey.blank(training)
    if not prunable(blank):
        raise ValueError(f"networks.{name}.train.lottery: expected convolutions or linear layers, found none")
    weights = state_bytes(blank)
    return Size(weights // 4, 8 * weights)  # magnitudes in float64, and their order


PRUNING = Step("pruning", VERSION, _layout, _partition, _size, summary=_summary)
