"""The attacked stage: which labelled images a snapshot classifies correctly, as they are and under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.concepts import Attack
from configs.schema import Network
from storage.documents import Document
from storage.layouts import Layout, rows_layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network, preprocessing_of
from tasks.steps.common.samples import read_positions
from tasks.steps.common.survey import check_outputs, state_bytes
from tasks.steps.common.trials import spread
from tasks.steps.concepts.watched import Watched

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from tasks.steps.concepts.plan import Monitored
    from tasks.training.adversarial import OfImages

VERSION = 1
LATER = {"loss", "images"}  # settings that older stages did not have: their defaults stay out of the key
ROWS = 100  # images in one attack: a partition


def attacked_spec(watched: Watched, network: Network, manifest: StageSpec, asked: Attack) -> StageSpec:
    """Return the spec of the attack on a snapshot.

    Parameters
    ----------
    network : the network of the config, with its own preprocessing: that of probing images may differ
    manifest : of the labelled images
    """
    parameters, place, digests, inputs = replace(
        watched, settings=watched.settings.model_copy(update={"preprocessing": network.preprocessing})
    ).identity()
    settings = asked.model_dump(mode="json", exclude={"data", "split", "networks", *LATER})
    settings |= asked.model_dump(mode="json", include=LATER, exclude_defaults=True)
    label = f"{watched.network} {watched.label} on {manifest.label} {asked.split}"
    of_images = {"network": parameters, "split": asked.split, "attack": settings}
    return ATTACKED.spec(of_images, {"data": manifest, **inputs}, digests=digests, place=place, label=label)


def attacked_table(store: Store, answers: Sequence[Monitored]) -> pd.DataFrame:
    """Return the accuracy of each snapshot on images as they are, and under attack."""
    import pandas as pd

    rows = []
    for answer in answers:
        for snapshot, spec in enumerate(answer.attacked):
            found = open_finished(store, spec).summary
            rows.append({"network": answer.network, "seed": answer.seed, "snapshot": snapshot, **found})
    return pd.DataFrame(rows)


def attack_text(answers: Sequence[Monitored]) -> str:
    """Return the attack in words, "" where there is none."""
    specs = [spec for answer in answers for spec in answer.attacked]
    if not specs:
        return ""
    asked, place = specs[0].parameters["attack"], specs[0].inputs["data"].place["name"]
    epsilon, step = (f"{255 * asked[name]:.3g}/255" for name in ("epsilon", "step"))
    attacks = f"{asked['restarts']} attacks of {asked['steps']} steps of {step}"
    images = "the first images" if asked.get("images") == "first" else "images"
    raised = f", which raise the {asked['loss']}," if "loss" in asked else ""
    return f"{attacks}{raised} within {epsilon} on {images} of {place}, {specs[0].parameters['split']}"


def _layout(store: Store, spec: StageSpec) -> Layout:
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    attacked = len(_chosen(rows, spec.parameters["attack"]))
    arrays = {name: rows_layout((attacked,), "uint8", ("sample",), ROWS) for name in ("right", "robust")}
    return Layout(-(-attacked // ROWS), {"sample_id": rows_layout((attacked,), "int64", ("sample",), ROWS), **arrays})


def _partition(work: Work, number: int) -> None:
    """Attack a hundred images; the random starts are a function of (seed, partition)."""
    import torch

    from tasks.io.randomness import seeded
    from tasks.training.adversarial import robust

    stage, spec = work.stage, work.stage.spec
    split, asked = spec.parameters["split"], dict(spec.parameters["attack"])
    rows = positions(stage.store, spec.inputs["data"].path, split)
    chosen = _chosen(rows, asked)
    for name in ("count", "images"):
        asked.pop(name, None)
    device, seed = choose_device(work.device), [asked.pop("seed"), number]
    with stage.partition(number) as part:
        start, stop = part.span
        picked = rows.iloc[chosen[start:stop]]
        labels = torch.from_numpy(picked["label_given"].to_numpy(np.int64, copy=True)).to(device)
        network = _of_images(stage, device)
        images = network.images(read_positions(stage.store, spec, split, chosen[start:stop]).to(device))
        with torch.inference_mode():
            right = network(images).argmax(1) == labels
        with seeded(int(np.random.SeedSequence(seed).generate_state(1)[0]), device):
            held = robust(network, images, labels, **asked)
        part.write("sample_id", picked["id"].to_numpy(np.int64))
        part.write("right", right.cpu().numpy().astype(np.uint8))
        part.write("robust", held.cpu().numpy().astype(np.uint8))
        part.numbers.update(measured(samples=len(picked), right=int(right.sum()), robust=int(held.sum())))


def _chosen(rows: pd.DataFrame, asked: Mapping[str, Any]) -> NDArray[np.int64]:  # Any: settings of an attack
    """Return the positions of the attacked images among the rows of the split, which are in class-major order."""
    count: int = asked["count"]
    if asked.get("images") != "first":
        return spread(len(rows), count)
    return np.sort(np.argsort(rows["id"].to_numpy(np.int64), kind="stable")[:count])


def _of_images(stage: Stage, device: torch.device) -> OfImages:
    """Return the network of a stage as a function of images in [0, 1]."""
    return _wrapped(load_network(stage.store, stage.spec, device), stage.spec, device)


def _wrapped(model: nn.Module, spec: StageSpec, device: torch.device) -> OfImages:
    """Return a network behind the normalisation of its preprocessing."""
    import torch

    from tasks.training.adversarial import OfImages

    scale = preprocessing_of(spec.parameters["network"])
    mean, std = (torch.tensor(values, dtype=torch.float32)[None, :, None, None] for values in (scale.mean, scale.std))
    return OfImages(model, mean.to(device), std.to(device))


def _summary(stage: Stage) -> Document:
    """Return the number of images and the shares that are classified correctly, clean and under attack."""
    markers = [marker["numbers"] for n in range(stage.layout.partitions) if (marker := stage.marker(n)) is not None]
    images, right, held = (sum(marker[name] for marker in markers) for name in ("samples", "right", "robust"))
    return {"images": images, "clean": right / images, "robust": held / images}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a pass forwards and back keeps the outputs of all modules."""
    import torch

    from tasks.splitting.outputs import all_outputs

    found, split = survey.data(spec.inputs["data"]), spec.parameters["split"]
    n = min(found.count(split), spec.parameters["attack"]["count"])

    def look(model: nn.Module, example: torch.Tensor, images: torch.Tensor) -> int:
        wrapped = _wrapped(model, spec, torch.device("cpu"))
        with torch.inference_mode():
            logits = wrapped(wrapped.images(images))
        try:
            check_outputs(found, logits.shape[1], spec.inputs["data"])
        except ValueError as error:
            raise ValueError(f"{error}, or name the networks to attack in `concepts.attack.networks`") from error
        return all_outputs(model, example)

    values = survey.look(spec, "attack", look)
    return Size(10 * n, 2 * 4 * ROWS * values + 4 * state_bytes(survey.blank(spec)))


ATTACKED = Step("attacked", VERSION, _layout, _partition, _size, summary=_summary, network=True)
