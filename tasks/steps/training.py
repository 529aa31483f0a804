"""The training stage: one long chain of segments, each from its predecessor's checkpoint, resumed bitwise."""

import json
import platform
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from configs.schema import Network, Training
from storage.documents import Document, digest
from storage.layouts import Layout
from storage.results import table_bytes
from storage.specs import StageSpec, without_defaults
from storage.stages import Stage, marker_name, open_finished
from storage.stores import Store, StoreError
from tasks.io.images import preprocess
from tasks.io.networks import build_model
from tasks.io.sources import open_source
from tasks.io.tensors import pack_tensors, unpack_tensors
from tasks.steps.life import Step, Work, measured
from tasks.steps.manifest import data_of, positions
from tasks.steps.networks import WEIGHTS, choose_device, network_identity, preprocessing_of
from tasks.training.batches import ShuffledBatches
from tasks.training.loop import Fetch, accuracy, train_steps
from tasks.training.optimizers import OPTIMIZERS

VERSION = 1
CURVES = "epochs.parquet"
MEMORY_SAMPLES = 256 * 2**20  # bytes of preprocessed inputs that a worker keeps between steps


def training_spec(name: str, network: Network, manifest: StageSpec, seed: int) -> StageSpec:
    """Return the spec of the training of a network from one seed."""
    assert network.train is not None
    parameters, place, digests = network_identity(network, manifest)
    settings = network.train.model_dump(mode="json")
    defaults = {k: f.get_default() for k, f in Training.model_fields.items() if not f.is_required()}
    settings = without_defaults(settings, {**defaults, "batches": defaults["batches"].model_dump(mode="json")})
    del settings["data"]  # a name; the manifest among the inputs stands for it
    full = network.train.model_dump(mode="json")
    return StageSpec(
        "training",
        VERSION,
        {"network": parameters, "train": settings, "seed": seed},
        {"data": manifest},
        digests,
        {**place, "train": full},
        label=f"{name} seed {seed}",
    )


def training_steps(spec: StageSpec, survey: Document) -> tuple[int, int]:
    """Return the steps of an epoch and of the whole training."""
    train = spec.place["train"]
    n = sum(survey["splits"][train["split"]]["counts"])
    per_epoch = ShuffledBatches(n, train["batches"]["size"], 0).per_epoch
    return per_epoch, per_epoch * int(train["epochs"])


def environment(device: torch.device) -> Document:
    """Return what must be the same for the same bits: device kind, instruction set, library versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"device": device.type, "kind": name, "machine": platform.machine(), "torch": str(torch.__version__)}


def _layout(store: Store, spec: StageSpec) -> Layout:
    """One partition per checkpoint interval."""
    manifest = open_finished(store, spec.inputs["data"])
    _, steps = training_steps(spec, manifest.summary)
    return Layout(-(-steps // int(spec.place["train"]["checkpoint_every"])))


def _check(stage: Stage) -> None:
    """Keep one chain: drop every segment that does not start from its predecessor's checkpoint."""
    parent: str | None = ""
    for number in range(stage.layout.partitions):
        marker = stage.marker(number)
        if marker is None or parent is None or marker["numbers"]["parent"] != parent:
            parent = None
            stage.store.remove(f"{stage.spec.path}/markers/{marker_name(number)}")
        else:
            parent = str(marker["numbers"]["checkpoint"])


def _partition(work: Work, number: int) -> None:
    """Train one segment and write its checkpoint, named by its digest so that two attempts never mix."""
    stage, device = work.stage, choose_device(work.device)
    torch.set_num_threads(1)
    _deterministic(device)
    train: Document = stage.spec.place["train"]
    survey = open_finished(stage.store, stage.spec.inputs["data"]).summary
    per_epoch, total = training_steps(stage.spec, survey)
    start, stop = _bounds(stage, number, total)
    parent = _parent(stage, number, environment(device))
    model, optimizer = _state(stage, parent, device)
    fetch = _fetch(stage, str(train["split"]), device)
    batches = ShuffledBatches(_size(survey, train["split"]), train["batches"]["size"], stage.spec.parameters["seed"])
    held_out = _fetch(stage, str(train["evaluate"]), device), _size(survey, train["evaluate"])
    epochs = []
    with stage.partition(number) as part:
        losses: list[float] = []
        while start < stop:
            end = min(stop, (start // per_epoch + 1) * per_epoch)
            losses += train_steps(model, optimizer, fetch, batches, start, end)
            if end % per_epoch == 0:
                epochs.append({"epoch": end // per_epoch, "accuracy": accuracy(model, *held_out)})
            start = end
        data = _checkpoint(model, optimizer)
        name = f"checkpoint-{number:06d}-{digest(data)[:12]}.safetensors"
        part.write_file(name, data)
        if stop == total:
            part.write_file(WEIGHTS, pack_tensors(model.state_dict()))
            part.write_file(CURVES, table_bytes(_curves(stage, number, losses, epochs, per_epoch)))
        part.numbers.update(
            measured(
                parent=parent.get("checkpoint", ""),
                checkpoint=name,
                losses=losses,
                epochs=epochs,
                environment=environment(device),
            )
        )


def _bounds(stage: Stage, number: int, total: int) -> tuple[int, int]:
    """Return the first and past-the-end step of a segment."""
    every = int(stage.spec.place["train"]["checkpoint_every"])
    return number * every, min((number + 1) * every, total)


def _size(survey: Document, split: str) -> int:
    """Return the number of samples of a split."""
    return int(sum(survey["splits"][split]["counts"]))


def _parent(stage: Stage, number: int, here: Document) -> Document:
    """Return the numbers of the segment before, after checking that it was made in this environment."""
    if number == 0:
        return {}
    marker = stage.marker(number - 1)
    assert marker is not None, number
    before: Document = marker["numbers"]
    if before["environment"] != here:
        differs = next(k for k in here if before["environment"].get(k) != here[k])
        raise StoreError(
            f"{stage.spec.title}: its checkpoint was made with {differs} {before['environment'].get(differs)}, "
            f"here it is {here[differs]}; go on there, or remove {stage.store.path(stage.spec.path)} to train anew"
        )
    return before


def _state(stage: Stage, parent: Document, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return model and optimiser as the segment before left them."""
    network = stage.spec.parameters["network"]
    model = build_model(network["model"], network["arguments"], stage.spec.parameters["seed"]).to(device)
    settings = dict(stage.spec.place["train"]["optimizer"])
    optimizer = OPTIMIZERS[settings.pop("kind")](model.parameters(), **settings)
    if parent:
        data = stage.store.read(f"{stage.spec.path}/files/{parent['checkpoint']}")
        if digest(data)[:12] != parent["checkpoint"].split("-")[-1].removesuffix(".safetensors"):
            raise StoreError(
                f"{stage.spec.title}: checkpoint {parent['checkpoint']} is damaged; remove the stage's folder"
            )
        tensors = unpack_tensors(data)
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        _load_optimizer(optimizer, tensors)
    return model, optimizer


def _checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """Return model and optimiser state as one safetensors file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    return pack_tensors(tensors)


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of a checkpoint into an optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _fetch(stage: Stage, split: str, device: torch.device) -> Fetch:
    """Return a function from positions of a split to inputs and labels on the device."""
    manifest = stage.spec.inputs["data"]
    rows = positions(stage.store, manifest.path, split)
    labels = torch.from_numpy(rows["label_given"].to_numpy(np.int64, copy=True))
    read = _reader(json.dumps(dict(manifest.place)), json.dumps(dict(stage.spec.parameters["network"])))
    first = read.__wrapped__((rows["key"].iloc[0],))
    if first.nbytes * len(rows) <= MEMORY_SAMPLES:
        whole = read(tuple(rows["key"]))
        return lambda picked: (whole[torch.from_numpy(picked)].to(device), labels[torch.from_numpy(picked)].to(device))
    keys = rows["key"].to_numpy()
    return lambda picked: (
        read.__wrapped__(tuple(keys[picked])).to(device),
        labels[torch.from_numpy(picked)].to(device),
    )


@lru_cache(maxsize=1)
def _reader(place: str, network: str) -> Any:  # Any: a cached function, whose type has no name
    """Return a function from sample keys to preprocessed inputs that remembers its last two calls."""
    spec = StageSpec("manifest", 0, place=json.loads(place))
    source, settings = open_source(data_of(spec)), preprocessing_of(json.loads(network))

    @lru_cache(maxsize=2)
    def read(keys: tuple[str, ...]) -> Tensor:
        samples = source.read(keys)
        return torch.stack([preprocess(s.image, settings, key) for s, key in zip(samples, keys, strict=True)])

    return read


def _deterministic(device: torch.device) -> None:
    """Choose kernels that give the same bits each time."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def _curves(stage: Stage, number: int, losses: list[float], epochs: list[Document], per_epoch: int) -> pd.DataFrame:
    """Return a row per epoch: mean loss and held-out accuracy."""
    before = [stage.marker(earlier) for earlier in range(number)]
    all_losses = [x for marker in before if marker is not None for x in marker["numbers"]["losses"]] + losses
    all_epochs = [e for marker in before if marker is not None for e in marker["numbers"]["epochs"]] + epochs
    means = np.array(all_losses).reshape(-1, per_epoch).mean(axis=1)
    return pd.DataFrame(
        {
            "epoch": [e["epoch"] for e in all_epochs],
            "loss": means,
            "accuracy": [e["accuracy"] for e in all_epochs],
        }
    )


def _summary(stage: Stage) -> Document:
    """State the last accuracy, and remove the checkpoints of abandoned attempts."""
    markers = [stage.marker(number) for number in range(stage.layout.partitions)]
    chain = {name for marker in markers if marker is not None for name in marker["files"]}
    for name in stage.store.names(f"{stage.spec.path}/files"):
        if name not in chain:
            stage.store.remove(f"{stage.spec.path}/files/{name}")
    last = markers[-1]
    assert last is not None
    return {"accuracy": last["numbers"]["epochs"][-1]["accuracy"]}


TRAINING = Step(_layout, _partition, _summary, _check, network=True, chain=True)
