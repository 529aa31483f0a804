"""How a network is trained, in a config: optimiser, schedule, batches, augmentation, snapshots and what is recorded."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from configs.section import Location, Name, Section, check_distinct

Positive = Annotated[int, Field(ge=1)]
Step = Annotated[int, Field(ge=0)]
MAX_SNAPSHOTS = 10_000  # each is a stage
MAX_EPOCHS = 1_000_000


def _by_kind(*sections: type[Section]) -> BeforeValidator:
    """Let `kind` choose a section, the first one where it is left out, so that errors name the file's own keys."""
    known = {str(section.model_json_schema()["properties"]["kind"]["const"]): section for section in sections}

    def choose(value: object) -> object:
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping such as {{kind: {next(iter(known))}}}, found {type(value).__name__}")
        kind = value.get("kind", next(iter(known)))
        if not isinstance(kind, str) or kind not in known:
            raise ValueError(f"kind: unknown {kind!r}; known: {', '.join(known)}")
        return known[kind].model_validate(dict(value))

    return BeforeValidator(choose)


# ---------------------------------------------------------------------------------------- optimisers


class _Momentum(Section):
    """What SGD and everything over it may say."""

    lr: float = Field(gt=0, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="share of the last step's velocity that is kept")
    nesterov: bool = Field(False, description="look ahead along the velocity; needs momentum")
    weight_decay: float = Field(0.0, ge=0, description="multiple of the weights added to the gradient")

    @model_validator(mode="after")
    def _nesterov_moves(self) -> "_Momentum":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0")
        return self

    @property
    def copies(self) -> int:
        """Numbers that a checkpoint keeps of each weight: the weight, and its velocity."""
        return 2 if self.momentum else 1


class Sgd(_Momentum):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"


class Sam(_Momentum):
    """Sharpness-aware minimisation (Foret et al. 2021) over SGD: one update a step, from two gradients."""

    kind: Literal["sam"]
    rho: float = Field(0.05, gt=0, description="distance of the ascent, in the norm over all weights")


class _Moments(Section):
    """What Adam and its kin may say."""

    lr: float = Field(0.001, gt=0, description="learning rate")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="decay of the running means of gradient and squared gradient"
    )
    eps: float = Field(1e-8, ge=0, description="added to the root of the second moment")

    @property
    def copies(self) -> int:
        """Numbers that a checkpoint keeps of each weight: the weight, and its two moments."""
        return 3


class Adam(_Moments):
    """Adam (Kingma & Ba 2015)."""

    kind: Literal["adam"]
    weight_decay: float = Field(0.0, ge=0, description="multiple of the weights added to the gradient")


class AdamW(_Moments):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"]
    weight_decay: float = Field(0.01, ge=0, description="share of the weights, times lr, taken off in each step")


Optimizer = Annotated[Sgd | Adam | AdamW | Sam, _by_kind(Sgd, Adam, AdamW, Sam)]

# ----------------------------------------------------------------------------------------- schedules


class Constant(Section):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"


class StepDecay(Section):
    """The learning rate is multiplied by `factor` every so many epochs."""

    kind: Literal["step"]
    every: int = Field(ge=1, description="epochs")
    factor: float = Field(0.1, gt=0, le=1, description="of the learning rate")


class Milestones(Section):
    """The learning rate is multiplied by `factor` at given epochs."""

    kind: Literal["milestones"]
    at: tuple[Positive, ...] = Field(min_length=1, description="epochs after which the rate falls, rising")
    factor: float = Field(0.1, gt=0, le=1, description="of the learning rate")

    @model_validator(mode="after")
    def _rising(self) -> "Milestones":
        if any(later <= earlier for earlier, later in pairwise(self.at)):
            raise ValueError(f"at: epochs rise, found {list(self.at)}")
        return self


class Cosine(Section):
    """The learning rate falls along half a cosine, step by step, after a linear rise."""

    kind: Literal["cosine"]
    warmup: float = Field(0.0, ge=0, description="epochs of linear rise to the full rate")
    final: float = Field(0.0, ge=0, le=1, description="share of the learning rate that is left at the end")


Schedule = Annotated[Constant | StepDecay | Milestones | Cosine, _by_kind(Constant, StepDecay, Milestones, Cosine)]

# ------------------------------------------------------------------------------------------- batches


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
    ghosts: int = Field(40, ge=0, description="samples of all classes beside each batch; they have no loss")
    ghost_norm: Literal["corrected", "as_printed"] = Field(
        "corrected", description="batch norm over batch and ghosts: the corrected formula, or Algorithm 2 as printed"
    )
    detach_ghosts: bool = Field(False, description="no gradient flows through the ghosts")

    @property
    def most(self) -> int:
        """The most samples of a batch, ghosts too."""
        return self.size + self.ghosts


class SingleExample(Section):
    """One example an update, every example once an epoch (the paper's Algorithm 1)."""

    kind: Literal["single-example"]

    @property
    def most(self) -> int:
        """The most samples of a batch."""
        return 1


Batches = Annotated[Shuffled | SingleClass | SingleExample, _by_kind(Shuffled, SingleClass, SingleExample)]

# ---------------------------------------------------------------------------------------------- rest


class Augment(Section):
    """Random crops and flips of the preprocessed images: a function of (seed, epoch, sample)."""

    pad: int = Field(0, ge=0, description="pixels of zeros on each side, from which a crop of the old size is cut")
    flip: bool = Field(False, description="mirror left and right with probability 1/2")


class Record(Section):
    """The archive of updates, which says later who taught the network."""

    kind: Literal["auto", "dense"] = Field("auto", description="what is kept of each update; auto chooses")
    layers: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of modules; default: every one that can be traced"
    )
    steps: tuple[tuple[Step, Positive], ...] | None = Field(
        None, min_length=1, description="ranges of steps [first, past the end], rising; default: all"
    )
    archive_budget: str = Field(
        "20GB", pattern=r"^\d+(\.\d+)?\s*([kMGT]i?)?B$", description="size beyond which nothing starts"
    )

    @model_validator(mode="after")
    def _check_lists(self) -> "Record":
        check_distinct("layers", self.layers or ())
        spans = self.steps or ()
        empty = any(stop <= start for start, stop in spans)
        overlap = any(start < stop for (_, stop), (start, _) in pairwise(spans))
        if empty or overlap:
            raise ValueError(f"steps: ranges [first, past the end] rise, found {[list(span) for span in spans]}")
        return self


class Gates(Section):
    """Class-specific gates on the channels of the last map (CSG, Liang et al. 2020), learned beside the network.

    They take part in the last epoch of every `period`, counted from the start, once `plain_epochs` are over.
    """

    lr: float = Field(
        gt=0,
        description="learning rate of the gates, which the schedule multiplies too; the penalty closes a gate by "
        "about lr * weight / (1 - momentum) in a step with gates",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the last step's velocity that is kept, of the gates")
    weight: float = Field(0.001, ge=0, description="of the penalty on open gates in the loss (the paper's lambda)")
    share: float = Field(0.2, ge=0, le=1, description="share of all gates that may be open without a penalty")
    plain_epochs: int = Field(10, ge=0, description="epochs before the first with gates")
    period: int = Field(3, ge=1, description="epochs of which the last one has gates, the others none")

    @property
    def first_epoch(self) -> int:
        """The first epoch with gates, from 0."""
        return self.plain_epochs + (-self.plain_epochs - 1) % self.period


class Course(Section):
    """The settings of a training that are no matter of what is trained, and on what."""

    epochs: int = Field(ge=1, le=MAX_EPOCHS, description="passes over the split")
    optimizer: Optimizer
    schedule: Schedule = Constant()
    clip: float | None = Field(None, gt=0, description="largest norm of the whole gradient; longer ones are shortened")
    batches: Batches = Shuffled()
    augment: Augment | None = None
    checkpoint_every: int = Field(200, ge=1, description="steps between two checkpoints: what a crash may cost")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if isinstance(self.schedule, Cosine) and self.schedule.warmup >= self.epochs:
            raise ValueError(f"schedule.warmup: {self.schedule.warmup:g} of {self.epochs} epochs leave no time to fall")
        return self


class Training(Course):
    """How a network is trained from the run's seed."""

    data: Name = Field(description="name of the data set")
    split: Name = Field("train", description="split to train on")
    evaluate: Name = Field("val", description="split whose accuracy is measured after each epoch")
    start: Location | None = Field(
        None,
        description="weights to start from in place of fresh ones, as `weights` of a network; a head of another number "
        "of classes stays fresh",
    )
    snapshots: Positive | tuple[Step, ...] | None = Field(
        None, description="weights to keep as stages of their own: n, evenly spaced up to the end, or a list of steps"
    )
    record: Record | None = None
    gates: Gates | None = None

    @model_validator(mode="after")
    def _few_snapshots(self) -> "Training":
        check_distinct("snapshots", self.snapshots if isinstance(self.snapshots, tuple) else ())
        if isinstance(self.snapshots, int) and self.snapshots > MAX_SNAPSHOTS:
            raise ValueError(f"snapshots: at most {MAX_SNAPSHOTS:,}, found {self.snapshots}")
        return self

    @model_validator(mode="after")
    def _gates_open(self) -> "Training":
        if self.gates is None:
            return self
        if self.optimizer.kind != "sgd":
            raise ValueError(
                f"gates: they are learned by SGD, found optimizer.kind {self.optimizer.kind}; set it to sgd"
            )
        if self.gates.first_epoch >= self.epochs:
            raise ValueError(
                f"gates: the first epoch with gates would be {self.gates.first_epoch + 1}, of {self.epochs}; "
                "train longer, or set gates.plain_epochs or gates.period lower"
            )
        return self
