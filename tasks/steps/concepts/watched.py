"""The snapshots of a network that question 3 looks at: of a training, of a folder of checkpoints, or given weights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.companions import Lottery
from configs.concepts import Checkpoints, Probe
from configs.schema import Config, Network
from storage.documents import Document
from storage.specs import StageSpec
from tasks.io.networks import build_model, resolve_preprocessing
from tasks.steps.common.lottery import links_of
from tasks.steps.common.networks import check_weights, network_identity
from tasks.steps.common.question import Shared
from tasks.steps.common.snapshots import snapshot_specs
from tasks.steps.common.tickets import estimated_spec

UNKNOWN_STEP = -1


@dataclass(frozen=True)
class Watched:
    """One snapshot of a network.

    Attributes
    ----------
    network : name in the config
    label : name of the snapshot for people
    step : number of updates or of the checkpoint, -1 where unknown
    settings : the network with the weights of the snapshot, preprocessing probing images
    training, stage : the training and its snapshot; None for given weights, `stage` None for the final weights too
    named : whether the label says where the snapshot belongs, in place of a step
    """

    network: str
    label: str
    step: int
    settings: Network
    training: StageSpec | None = None
    stage: StageSpec | None = None
    named: bool = False

    def identity(self) -> tuple[Document, Document, dict[str, str], dict[str, StageSpec]]:
        """Return parameters, settings, digests and inputs of a stage that runs the snapshot."""
        parameters, place, digests = network_identity(self.network, self.settings, self.training)
        given = {"network": self.training, "snapshot": self.stage}
        return parameters, place, digests, {role: spec for role, spec in given.items() if spec is not None}


@dataclass(frozen=True)
class Series:
    """All snapshots of a network, in order, and a line for each checkpoint that is left out."""

    snapshots: tuple[Watched, ...]
    left_out: tuple[str, ...] = ()


def series_of(config: Config, shared: Shared, name: str, seed: int) -> Series:
    """Return the snapshots of a network and seed.

    Raises
    ------
    ValueError : no checkpoint in a folder, a size of the probing images that is not known; names the config's key
    """
    asked, network = config.concepts, config.networks[name]
    assert asked is not None
    settings = probing_network(name, network, asked.probe.size)
    if name in asked.checkpoints:
        return _folder(name, settings, asked.checkpoints[name])
    training = shared.trainings.get((name, seed))
    if training is None:
        return Series((Watched(name, "given weights", UNKNOWN_STEP, settings),))
    if network.train is None:
        return Series((Watched(name, "end of training", UNKNOWN_STEP, settings, training),))
    if network.train.lottery is not None and asked.snapshots == "all":
        return _lottery(
            name, settings, training, network.train.lottery, shared.manifests[asked.probe.data], asked.probe
        )
    wanted = network.train.snapshots if asked.snapshots == "all" else asked.snapshots
    stages = snapshot_specs(training, wanted)
    if not stages:
        return Series((Watched(name, "end of training", UNKNOWN_STEP, settings, training),))
    return Series(tuple(_snapshot(name, settings, training, stage) for stage in stages))


def probing_network(name: str, network: Network, size: int | None) -> Network:
    """Return a network whose preprocessing takes whole probing images of any mode, resized to a square.

    Label maps belong to whole images. Cropping would move them.

    Raises
    ------
    ValueError : the size is neither given nor in the network's preprocessing
    """
    found = resolve_preprocessing(network.preprocessing)
    resized = found.resize if found.resize is None or isinstance(found.resize, int) else found.resize[0]
    side = size or found.crop or resized
    if side is None:
        raise ValueError(
            f"concepts.probe.size: expected a size of the probing images, as networks.{name}.preprocessing has "
            "neither `crop` nor `resize`, found none; set it to the side in pixels that the network takes"
        )
    whole = found.model_copy(update={"resize": (side, side), "crop": None, "convert": True})
    return network.model_copy(update={"preprocessing": whole})


def _lottery(
    name: str, settings: Network, last: StageSpec, asked: Lottery, manifest: StageSpec, probe: Probe
) -> Series:
    """Return the masked start of every training of a lottery, and the end of the last training.

    Batch norm of the starts is as rewound, or estimated on the probing images.
    """
    found, stages = [], links_of(last)
    for number, link in enumerate(stages):
        start = link.snapshot if link.pruning is None else link.training.inputs["start"]
        if asked.batch_norm == "estimated":
            network, _, _ = network_identity(name, settings, link.trained)
            start = estimated_spec(link.snapshot, link.pruning, network, manifest, probe.split)
        label = f"start {number} of {asked.stages}, {(1 - asked.fraction) ** number:.3g} of the weights"
        found.append(Watched(name, label, UNKNOWN_STEP, settings, link.trained, start, named=True))
    end = Watched(name, f"end of training {asked.stages}", UNKNOWN_STEP, settings, last, named=True)
    return Series((*found, end))


def _snapshot(name: str, settings: Network, training: StageSpec, stage: StageSpec) -> Watched:
    """Return a snapshot of a training; the label is the end of the stage's own."""
    label = stage.label.removeprefix(training.label).strip()
    step = int(stage.parameters["step"]) if "step" in stage.parameters else UNKNOWN_STEP
    return Watched(name, label, step, settings, training, stage)


def _folder(name: str, settings: Network, asked: Checkpoints) -> Series:
    """Return the checkpoints of a folder, in the order of their numbers; those that do not fit are left out."""
    key, files = f"concepts.checkpoints.{name}", checkpoint_files(name, asked)
    if not files:
        folder = Path(asked.folder).expanduser()
        raise ValueError(f"{key}.pattern: expected names of files that match {asked.pattern!r}, found none in {folder}")
    found = series_of_files(name, settings, files)
    if not found.snapshots:
        raise ValueError(found.left_out[0])
    return found


def series_of_files(name: str, settings: Network, files: Sequence[tuple[int, Path]]) -> Series:
    """Return the snapshots of files of weights with their numbers; those that do not fit are left out.

    Parameters
    ----------
    settings : the network, preprocessing probing images
    """
    key = f"concepts.checkpoints.{name}"
    try:
        build_model(settings.model, settings.arguments, 0)
    except ValueError as error:
        raise ValueError(f"networks.{name}: {error}") from error
    snapshots, left_out = [], []
    for number, path in files:
        given = settings.model_copy(update={"weights": str(path), "train": None, "updates": None})
        try:
            check_weights(given)
        except ValueError as error:
            left_out.append(f"{key}: {path.name} is left out: {error}")
        else:
            snapshots.append(Watched(name, path.stem, number, given))
    return Series(tuple(snapshots), tuple(left_out))


def checkpoint_files(name: str, asked: Checkpoints) -> Sequence[tuple[int, Path]]:
    """Return number and path of each file of a network's folder of checkpoints, by rising number.

    Raises
    ------
    ValueError : a folder that is missing, a pattern without numbers, a number twice; names the config's key
    """
    key, folder = f"concepts.checkpoints.{name}", Path(asked.folder).expanduser()
    try:
        pattern = re.compile(asked.pattern)
    except re.error as error:
        raise ValueError(f"{key}.pattern: expected a regular expression, found {asked.pattern!r}: {error}") from error
    if not folder.is_dir():
        raise ValueError(f"{key}.folder: expected a folder, found none at {asked.folder}")
    found = sorted(_matches(key, folder, pattern))
    for (number, path), (following, other) in itertools.pairwise(found):
        if number == following:
            raise ValueError(
                f"{key}.pattern: expected a number for each file, found {number} in {path.name} and {other.name}"
            )
    return found


def _matches(key: str, folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, Path]]:
    """Yield number and path of each file whose name matches a pattern."""
    for path in folder.iterdir():
        if not (match := pattern.search(path.name)) or not path.is_file():
            continue
        if not match.groups() or not (match.group(1) or "").isdecimal():
            raise ValueError(
                f"{key}.pattern: expected a first group of decimal digits, found {match.group(0)!r} in {path.name}; "
                r"write the number as (\d+)"
            )
        yield int(match.group(1)), path
