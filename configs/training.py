"""The settings of a training in a config: optimiser, schedule, batches, augmentation, snapshots and recording."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from configs.companions import Adversary, Diversity, Gates, Lottery
from configs.section import Location, Name, Section, check_distinct

Positive = Annotated[int, Field(ge=1)]
Step = Annotated[int, Field(ge=0)]
MAX_SNAPSHOTS = 10_000  # each is a stage
MAX_EPOCHS = 1_000_000


def _by_kind(*sections: type[Section]) -> BeforeValidator:
    """Let `kind` choose a section, by default the first one; errors then name the file's own keys."""
    kinds = {str(section.model_json_schema()["properties"]["kind"]["const"]): section for section in sections}

    def choose(value: object) -> object:
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping such as {{kind: {next(iter(kinds))}}}, found {type(value).__name__}")
        kind = value.get("kind", next(iter(kinds)))
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"kind: expected one of {', '.join(kinds)}, found {kind!r}")
        return kinds[kind].model_validate(dict(value))

    return BeforeValidator(choose)


class _Momentum(Section):
    """Settings of SGD, and of optimisers on top of it."""

    lr: float = Field(gt=0, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum: share of the last step's velocity that is kept")
    nesterov: bool = Field(False, description="Nesterov's method: look ahead along the velocity; needs momentum")
    weight_decay: float = Field(0.0, ge=0, description="multiple of the weights added to the gradient")

    @model_validator(mode="after")
    def _nesterov_moves(self) -> "_Momentum":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0, found 0; set `momentum`")
        return self

    @property
    def copies(self) -> int:
        """How many numbers a checkpoint keeps for each weight: the weight and its velocity."""
        return 2 if self.momentum else 1


class Sgd(_Momentum):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"


class Sam(_Momentum):
    """Sharpness-aware minimisation (Foret et al. 2021) over SGD: one update a step, from two gradients."""

    kind: Literal["sam"]
    rho: float = Field(0.05, gt=0, description="distance of the ascent step, in the norm over all weights")


class _Moments(Section):
    """Settings of Adam and related optimisers."""

    lr: float = Field(0.001, gt=0, description="learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="decay of the running means of gradient and squared gradient"
    )
    eps: float = Field(1e-8, ge=0, description="number added to the root of the second moment")

    @property
    def copies(self) -> int:
        """How many numbers a checkpoint keeps for each weight: the weight and its two moments."""
        return 3


class Adam(_Moments):
    """Adam (Kingma & Ba 2015)."""

    kind: Literal["adam"]
    weight_decay: float = Field(0.0, ge=0, description="multiple of the weights added to the gradient")


class AdamW(_Moments):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"]
    weight_decay: float = Field(0.01, ge=0, description="share of the weights, times lr, subtracted in each step")


Optimizer = Annotated[Sgd | Adam | AdamW | Sam, _by_kind(Sgd, Adam, AdamW, Sam)]


class Constant(Section):
    """A constant learning rate."""

    kind: Literal["constant"] = "constant"


class StepDecay(Section):
    """A learning rate that is multiplied by `factor` after every `every` epochs."""

    kind: Literal["step"]
    every: int = Field(ge=1, description="epochs between two changes of the learning rate")
    factor: float = Field(0.1, gt=0, le=1, description="factor that multiplies the learning rate")


class Milestones(Section):
    """A learning rate that is multiplied by `factor` at given epochs."""

    kind: Literal["milestones"]
    at: tuple[Positive, ...] = Field(min_length=1, description="epochs after which the rate falls, in rising order")
    factor: float = Field(0.1, gt=0, le=1, description="factor that multiplies the learning rate")

    @model_validator(mode="after")
    def _rising(self) -> "Milestones":
        if any(later <= earlier for earlier, later in pairwise(self.at)):
            raise ValueError(f"at: expected epochs in rising order, found {list(self.at)}")
        return self


class Cosine(Section):
    """A learning rate that falls along half a cosine, step by step, after a linear rise."""

    kind: Literal["cosine"]
    warmup: float = Field(0.0, ge=0, description="epochs of the linear rise to the full learning rate")
    final: float = Field(0.0, ge=0, le=1, description="share of the learning rate that remains at the end")


Schedule = Annotated[Constant | StepDecay | Milestones | Cosine, _by_kind(Constant, StepDecay, Milestones, Cosine)]


class Shuffled(Section):
    """Batches from a permutation of the training set that is a function of (seed, epoch)."""

    kind: Literal["shuffled"] = "shuffled"
    size: int = Field(32, ge=1, description="samples in a batch; the last batch of an epoch may be shorter")

    @property
    def most(self) -> int:
        """The most samples of a batch."""
        return self.size


class SingleClass(Section):
    """Batches of one class each, with ghosts of all classes for batch norm's statistics (Pfahler & Morik 2022)."""

    kind: Literal["single-class"]
    size: int = Field(88, ge=1, description="samples in a batch; the last batch of each class may be shorter")
    ghosts: int = Field(40, ge=0, description="samples of all classes added to each batch, without a loss of their own")
    ghost_norm: Literal["corrected", "as_printed"] = Field(
        "corrected", description="formula of batch norm with ghosts: corrected, or Algorithm 2 as printed"
    )
    detach_ghosts: bool = Field(False, description="stop gradients at the ghosts")

    @property
    def most(self) -> int:
        """The largest number of samples in a batch, with ghosts."""
        return self.size + self.ghosts


class SingleExample(Section):
    """One example an update, every example once an epoch (the paper's Algorithm 1)."""

    kind: Literal["single-example"]

    @property
    def most(self) -> int:
        """The most samples of a batch."""
        return 1


Batches = Annotated[Shuffled | SingleClass | SingleExample, _by_kind(Shuffled, SingleClass, SingleExample)]


class Augment(Section):
    """Random crops and flips of the preprocessed images: a function of (seed, epoch, sample)."""

    pad: int = Field(0, ge=0, description="pixels of zeros added on each side, before a crop of the original size")
    flip: bool = Field(False, description="mirror images left to right with probability 1/2")


class Record(Section):
    """The archive of weight updates, from which tracing finds who taught the network."""

    kind: Literal["auto", "dense", "hybrid", "replay"] = Field(
        "auto",
        description="form in which updates are kept: dense, every update; hybrid, by layer the smallest of factors, 16 "
        "bits, 8 bits and every bit; replay, digests of them, and readers make the steps again; auto takes the first "
        "that fits archive_budget",
    )
    layers: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of modules to record; default: all that can be traced"
    )
    steps: tuple[tuple[Step, Positive], ...] | None = Field(
        None, min_length=1, description="ranges of recorded steps [first, past the end], in rising order; default: all"
    )
    tolerance: float = Field(
        0.001, ge=0, le=0.01, description="largest rounding of a hybrid archive's updates, relative to each; 0 for none"
    )
    archive_budget: str = Field(
        "20GB", pattern=r"^\d+(\.\d+)?\s*([kMGT]i?)?B$", description="largest size of an archive"
    )

    @model_validator(mode="after")
    def _check_lists(self) -> "Record":
        check_distinct("layers", self.layers or ())
        spans = self.steps or ()
        empty = any(stop <= start for start, stop in spans)
        overlap = any(start < stop for (_, stop), (start, _) in pairwise(spans))
        if empty or overlap:
            found = [list(span) for span in spans]
            raise ValueError(f"steps: expected ranges [first, past the end] in rising order, found {found}")
        return self


class StartNetwork(Section):
    """The end of another network's training, with the same seed, as the start of a training."""

    network: Name = Field(description="network of the config whose trained weights are the start")


class Course(Section):
    """The settings of a training that do not depend on the network or the data."""

    epochs: int = Field(ge=1, le=MAX_EPOCHS, description="number of passes over the split")
    optimizer: Optimizer
    schedule: Schedule = Constant()
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient; a longer one is scaled down")
    batches: Batches = Shuffled()
    augment: Augment | None = None
    checkpoint_every: int = Field(200, ge=1, description="steps between two checkpoints; a crash loses at most these")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if isinstance(self.schedule, Cosine) and self.schedule.warmup >= self.epochs:
            found = f"found {self.schedule.warmup:g}"
            raise ValueError(f"schedule.warmup: expected fewer than all {self.epochs} epochs, {found}")
        return self


class Training(Course):
    """The training of a network from the run's seed."""

    data: Name = Field(description="name of the training data set")
    split: Name = Field("train", description="split to train on")
    evaluate: Name = Field("val", description="split whose accuracy is measured after each epoch")
    start: Location | StartNetwork | None = Field(
        None,
        description="weights to start from: a file, as `weights` of a network, or {network: NAME}, those that another "
        "network of the config ends with; a head with another number of classes keeps fresh weights",
    )
    snapshots: Positive | tuple[Step, ...] | None = Field(
        None, description="steps whose weights are kept as stages of their own: a number n, evenly spaced, or a list"
    )
    record: Record | None = None
    gates: Gates | None = None
    adversary: Adversary | None = None
    lottery: Lottery | None = None
    diversity: Diversity | None = None

    @model_validator(mode="after")
    def _snapshots_limited(self) -> "Training":
        check_distinct("snapshots", self.snapshots if isinstance(self.snapshots, tuple) else ())
        if isinstance(self.snapshots, int) and self.snapshots > MAX_SNAPSHOTS:
            raise ValueError(f"snapshots: expected at most {MAX_SNAPSHOTS:,}, found {self.snapshots}")
        return self

    @model_validator(mode="after")
    def _batches_differ(self) -> "Training":
        if self.diversity is not None and self.batches.most == 1:
            kind = self.batches.kind
            raise ValueError(
                f"diversity: expected batches of two images or more, found {kind} of one; raise their size"
            )
        return self

    @model_validator(mode="after")
    def _gates_open(self) -> "Training":
        if self.gates is None:
            return self
        if self.optimizer.kind != "sgd":
            raise ValueError(f"gates: expected optimizer.kind sgd, found {self.optimizer.kind}; set it to sgd")
        if self.gates.first_epoch >= self.epochs:
            raise ValueError(
                f"gates: expected an epoch with gates within {self.epochs} epochs, "
                f"found the first in epoch {self.gates.first_epoch + 1}; "
                "train longer, or lower gates.plain_epochs or gates.period"
            )
        return self
