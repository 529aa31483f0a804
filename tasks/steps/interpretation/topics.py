"""The topics stage: it trains the topics of a coreset, segment by segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document, Json, digest
from storage.layouts import Layout
from storage.specs import StageSpec, signature_defaults, without_defaults
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from storage.updates.archives import keep_chain, sweep_files
from tasks.engine.life import Clock, measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters import topics as pure
from tasks.steps.common.activations import batch_size, check_same_samples, map_shapes, open_split, ranges_by_class
from tasks.steps.common.chain import Earlier, check_chain, previous_segment, read_checkpoint
from tasks.steps.common.networks import choose_device
from tasks.steps.common.trainer import environment
from tasks.steps.interpretation.coreset_maps import RECOMPUTE, CoresetMaps, passes_note
from tasks.steps.interpretation.fitted_topics import FittedTopics
from tasks.steps.interpretation.method import Maps
from tasks.steps.interpretation.selection import count_classes, kept_positions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.capture import Split
    from tasks.interpreters.topic_training import TopicTraining
    from tasks.steps.interpretation.method import TokenHead

VERSION = 1
SEGMENT = 5  # epochs of a partition: the most that a crash loses
POOL_VALUES = 32_000_000  # map values in memory at once; a smaller coreset is read once per segment
RESULT = "topics.safetensors"
SCORED = ("shapley_images", "shapley_draws")  # parameters of the scores alone
DEFAULTS = signature_defaults(pure.check)


def topics_spec(activations: StageSpec, selection: StageSpec, parameters: Mapping[str, Json], seed: int) -> StageSpec:
    """Return the spec of the topics of a coreset."""
    own = without_defaults({k: v for k, v in parameters.items() if k not in SCORED}, DEFAULTS)
    inputs = {"activations": activations, "selection": selection}
    return TOPICS.spec({"interpreter": "topics", "seed": seed, **own}, inputs, label=f"topics on {selection.label}")


def setting(spec: StageSpec, name: str) -> Json:
    """Return a parameter of a stage of topics, its default where the spec leaves it out."""
    return spec.parameters.get(name, DEFAULTS[name])


def recomputes(spec: StageSpec) -> bool:
    """Say whether a stage of topics makes its maps again instead of reading them."""
    return bool(setting(spec, "maps") == RECOMPUTE)


def read_topics(store: Store, spec: StageSpec) -> Callable[[int], FittedTopics]:
    """Open finished topics; the result gives the same topics for each class."""
    from tasks.io.tensors import unpack_tensors

    tensors = unpack_tensors(open_finished(store, spec).read_file(RESULT))
    fitted = FittedTopics(tensors["topics"], tensors["r1"], tensors["r2"], float(setting(spec, "threshold")))
    return lambda index: fitted


def head_of(split: Split) -> TokenHead:
    """Return the head of a network on maps (n, h, w, d) of its device; gradients pass through.

    Where tokens are set apart, `apart` has those of the images, (n, k, d).
    """
    import torch

    def head(maps: Tensor, apart: Maps | None = None) -> Tensor:
        others = None if apart is None else torch.from_numpy(apart).to(maps)
        logits: Tensor = split.head(split.layout.native(maps, others).contiguous())
        return logits

    return head


def _layout(store: Store, spec: StageSpec) -> Layout:
    activations = open_finished(store, spec.inputs["activations"])
    check_same_samples(activations, open_finished(store, spec.inputs["selection"].inputs["activations"]))
    _check_count(spec, int(activations.summary["map"][-1]))
    return Layout(-(-_epochs(spec) // SEGMENT))


def _epochs(spec: StageSpec) -> int:
    """Return the number of epochs, with those of fixed topics."""
    return int(setting(spec, "epochs")) + int(setting(spec, "frozen_epochs"))


def _check_count(spec: StageSpec, channels: int) -> None:
    """Raise ValueError where there are more topics than channels."""
    if (m := int(setting(spec, "topics"))) > channels:
        raise ValueError(
            f"interpretation.interpreters.topics.topics: expected at most the {channels} channels of "
            f"{spec.inputs['activations'].label}, found {m}"
        )


def _partition(work: Work, number: int) -> None:
    """Train for a few epochs; the last partition also writes the topics and their errors."""
    from tasks.io.tensors import pack_tensors, unpack_tensors

    stage, spec = work.stage, work.stage.spec
    device, clock = choose_device(work.device), Clock()
    parent = previous_segment(Earlier(stage, number), environment(device))
    coreset = _Coreset(stage, device)
    training = _training(spec, coreset.channels, device)
    if parent:
        training.load(unpack_tensors(read_checkpoint(stage, parent["checkpoint"])))
    else:
        coreset.check_head()
    with stage.partition(number) as part:
        last = min((number + 1) * SEGMENT, _epochs(spec))
        losses = [coreset.train(training, epoch) for epoch in range(number * SEGMENT, last)]
        data = pack_tensors(training.tensors())
        name = f"checkpoint-{number:06d}-{digest(data)[:12]}.safetensors"
        part.write_file(name, data)
        seconds = float(clock.share(1)["seconds"])
        part.numbers.update(measured(parent=parent.get("checkpoint", ""), checkpoint=name, losses=losses))
        part.numbers.update(environment=environment(device), spent=seconds + float(parent.get("spent", 0.0)))
        if number == stage.layout.partitions - 1:
            found = {name: tensor for name, tensor in training.tensors().items() if "." not in name}
            part.write_file(RESULT, pack_tensors(found))
            fitted = FittedTopics(found["topics"], found["r1"], found["r2"], float(setting(spec, "threshold")))
            part.numbers["classes"] = coreset.classes(fitted, part.numbers["spent"])
            part.numbers["duplicates"] = [list(pair) for pair in pure.near_duplicates(found["topics"].numpy())]
        part.numbers.update(clock.share(1))  # with what was read before the training


def _training(spec: StageSpec, channels: int, device: torch.device) -> TopicTraining:
    """Return the training of a stage at step 0."""
    from tasks.interpreters.topic_training import TopicTraining

    names = ("topics", "hidden", "threshold", "concept", "distinct", "similarity", "nearest", "lr")
    settings = {name: setting(spec, name) for name in names}
    return TopicTraining(channels, seed=[int(spec.parameters["seed"]), 0], device=device, **settings)


def _rebuilt_values(spec: StageSpec, positions: int) -> int:
    """Return the values between maps and rebuilt maps of an image: amounts and the hidden layer of its positions."""
    return positions * (2 * int(setting(spec, "hidden")) + 4 * int(setting(spec, "topics")))


def _rebuilt_at_once(spec: StageSpec, positions: int) -> int:
    """Return the number of images whose maps are rebuilt at once."""
    return max(1, POOL_VALUES // _rebuilt_values(spec, positions))


class _Coreset:
    """The maps and labels of a coreset, and the head of their network."""

    def __init__(self, stage: Stage, device: torch.device) -> None:
        self.spec, self.device = stage.spec, device
        given, recompute = stage.spec.inputs["activations"], recomputes(stage.spec)
        self.activations: FinishedStage = open_finished(stage.store, given)
        self.maps = CoresetMaps(stage.store, given, recompute=recompute, device=device)
        self.kept = [
            np.sort(kept) for kept in kept_positions(open_finished(stage.store, stage.spec.inputs["selection"]))
        ]
        self.rows = np.sort(np.concatenate(self.kept))
        self.labels = self.activations.read("label")
        self.head = head_of(open_split(stage.store, given, device))
        h, w, self.channels = self.maps.shape
        self.most = max(1, POOL_VALUES // (h * w * self.channels))
        self._whole = self.maps.read_parts(self.rows) if len(self.rows) <= self.most else None

    def check_head(self) -> None:
        """Raise ValueError unless gradients pass through the head."""
        import torch

        maps, apart = self.maps.read_parts(self.rows[:2])
        if pure.head_gradient_missing(partial(self.head, apart=apart), torch.from_numpy(maps).to(self.device)):
            raise ValueError(
                f"{self.spec.title}: expected a head that can be differentiated, found logits without a gradient; "
                "topics are trained through the layers behind the map: take another layer or interpreter"
            )

    def train(self, training: TopicTraining, epoch: int) -> float:
        """Make the steps of an epoch; return their mean loss."""
        import torch

        frozen, losses = epoch >= int(setting(self.spec, "epochs")), []
        for maps, apart, labels in self._batches(epoch):
            given = torch.from_numpy(maps).to(self.device), torch.from_numpy(labels).to(self.device)
            losses.append(training.step(*given, partial(self.head, apart=apart), frozen=frozen))
        mean = float(np.mean(losses))
        if not np.isfinite(mean):
            raise ValueError(
                f"{self.spec.title}: expected finite losses, found {mean} in epoch {epoch + 1}; lower "
                "interpretation.interpreters.topics.lr"
            )
        return mean

    def classes(self, fitted: FittedTopics, seconds: float) -> dict[str, Json]:
        """Return the metrics of each class, by label: the error of its rebuilt maps, and its share of the time."""
        found: dict[str, Json] = {}
        h, w, _ = self.maps.shape
        size = min(self.most, _rebuilt_at_once(self.spec, h * w))
        for (label, _), kept in zip(ranges_by_class(self.activations).items(), self.kept, strict=True):
            residual = total = 0.0
            for start in range(0, len(kept), size):
                maps = self.maps.read(kept[start : start + size])
                residual += float(np.square(maps - fitted.express(maps).reconstruction, dtype=np.float64).sum())
                total += float(np.square(maps, dtype=np.float64).sum())
            error = (residual / total) ** 0.5 if total else 0.0
            share = seconds * len(kept) / len(self.rows)
            found[str(label)] = {"kept": len(kept), "relative_error": error, "seconds": share}
        return found

    def _batches(self, epoch: int) -> Iterator[tuple[Maps, Maps | None, NDArray[np.int64]]]:
        """Yield maps, tokens set apart, and labels of an epoch's batches, a function of seed and epoch alone."""
        from tasks.interpreters.topic_training import batches, pools

        seed, size = [int(self.spec.parameters["seed"]), 1, epoch], int(setting(self.spec, "batch"))
        for number, rows in enumerate(pools(self.rows, self.maps.chunk, self.most, seed)):
            maps, apart = self.maps.read_parts(rows) if self._whole is None else self._whole
            for chosen in batches(len(rows), size, [*seed, number]):
                others = None if apart is None else apart[chosen]
                yield maps[chosen], others, self.labels[rows[chosen]].astype(np.int64)


def _summary(stage: Stage) -> Document:
    """Return the classes' metrics, near-duplicate topics and losses; remove files of abandoned attempts."""
    markers = keep_chain(stage)
    sweep_files(stage, markers)
    last = markers[-1]["numbers"]
    losses = [loss for marker in markers for loss in marker["numbers"]["losses"]]
    return {"classes": last["classes"], "duplicates": last["duplicates"], "losses": losses}


def n_topics(spec: StageSpec, channels: int) -> int:
    """Return the number of columns of a class's topics."""
    return int(setting(spec, "topics"))


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a checkpoint has each value and two moments; a batch keeps its maps for the gradients."""
    activations = spec.inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    shapes = map_shapes(activations, survey)
    channels, m, hidden = shapes.maps[0], int(setting(spec, "topics")), int(setting(spec, "hidden"))
    _check_count(spec, channels)
    state = 4 * (channels * m + m * hidden + hidden * channels)
    positions, values = int(np.prod(shapes.maps[1:])), int(np.prod(shapes.maps))
    pool = min(n_classes * longest * values, max(POOL_VALUES, values))
    batch = int(setting(spec, "batch")) * (positions * (8 * m + 3 * hidden) + 6 * values + 6 * shapes.largest)
    at_once = min(longest, max(1, POOL_VALUES // values), _rebuilt_at_once(spec, positions))
    rebuilt = at_once * (_rebuilt_values(spec, positions) + 6 * values)
    memory, note = 4 * (3 * pool + max(batch, rebuilt)) + 8 * state, ""
    if recomputes(spec):
        segments, whole = -(-_epochs(spec) // SEGMENT), pool == n_classes * longest * values
        forward = batch_size(shapes.inputs) * 4 * (3 * int(np.prod(shapes.inputs)) + 6 * shapes.largest)
        memory, note = memory + forward, passes_note(spec.label, 1 + (segments if whole else _epochs(spec)))
    return Size(3 * state * -(-_epochs(spec) // SEGMENT) + state, memory, note)


TOPICS = Step(
    "topics", VERSION, _layout, _partition, _size, summary=_summary, check=check_chain, network=True, chain=True
)
