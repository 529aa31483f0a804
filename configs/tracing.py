"""Question 4 in a config: who taught the network that?"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.asked import Asked
from configs.section import INDEX, Name, Section, check_distinct

UNIT = rf"^.+:{INDEX}$"  # LAYER:INDEX
MAX_RETRAININGS = 10_000  # each is a training


class Queries(Section):
    """The samples whose representations are explained."""

    data: Name | None = Field(None, description="data set of the queries; default: the network's training data")
    split: Name = Field("val", description="split of the queries")
    count: int = Field(
        8, ge=1, description="number of queries: the first samples of each class, spread over the classes"
    )
    samples: Annotated[tuple[Annotated[int, Field(ge=0)] | str, ...], Field(min_length=1)] | None = Field(
        None, description="ids or keys of the queries, in this order, in place of the first samples of each class"
    )
    wrong: bool = Field(
        False, description="take misclassified samples first, spread over the classes, then samples as without it"
    )

    @model_validator(mode="after")
    def _one_choice(self) -> "Queries":
        if self.samples is None:
            return self
        default = type(self).model_fields["count"].default  # a recorded config states defaults too
        for key, given in (("count", self.count not in (default, len(self.samples))), ("wrong", self.wrong)):
            if given:
                raise ValueError(f"{key}: expected the samples alone, found {key} with them; remove one of both")
        check_distinct("samples", self.samples)
        return self


class Ridges(Section):
    """Densities of the step cosines by class (Alg. 3)."""

    bandwidth: float = Field(
        0.1,
        gt=0,
        description="width of the density kernel: in cosine units, or as a factor on the class's own deviation",
    )
    kind: Literal["absolute", "scott-factor"] = Field(
        "absolute", description="meaning of the bandwidth: cosine units, or Scott's factor"
    )
    classes: int = Field(10, ge=1, description="number of classes shown: those of the highest predicted probability")


class Lds(Section):
    """Linear datamodelling score: how well summed attributions predict networks trained on subsets."""

    subsets: int = Field(32, ge=2, description="number of random subsets of the training set")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="share of the training set in each subset")
    retrainings: int = Field(
        2,
        ge=1,
        description="networks trained on each subset, from different seeds; 2 or more give an upper bound of the score",
    )
    order: Literal["new", "same", "both"] = Field(
        "new",
        description="order of the examples in the retrainings: new (other seeds), same (the network's own seed, where "
        "examples outside the subset have weight 0; one retraining a subset), or both",
    )

    @model_validator(mode="after")
    def _can_be_trained(self) -> "Lds":
        if self.subsets * self.retrainings > MAX_RETRAININGS:
            asked = f"{self.subsets} x {self.retrainings}"
            raise ValueError(f"subsets x retrainings: expected at most {MAX_RETRAININGS:,} networks, found {asked}")
        return self


class Measured(Section):
    """What a score of the whole network explains: an answer, or the activation of a unit."""

    measure: str
    unit: Annotated[str, Field(pattern=UNIT)] | None = Field(
        None,
        description="unit that the measure `unit` is about, as LAYER:INDEX: a neuron or filter of a recorded layer",
    )

    @model_validator(mode="after")
    def _unit_with_its_measure(self) -> "Measured":
        if (self.measure == "unit") != (self.unit is not None):
            found = "none" if self.unit is None else f"{self.unit!r} with measure {self.measure!r}"
            raise ValueError(f"unit: expected LAYER:INDEX with measure 'unit' and none without, found {found}")
        return self


class Tracin(Measured):
    """TracIn: products of loss gradients of training examples with a gradient of the query."""

    measure: Literal["loss", "unit"] = Field(
        "loss",
        description="gradient of the query: of its loss, or of a unit's activation, its output before a nonlinearity, "
        "mean over positions",
    )
    checkpoints: int | None = Field(
        None,
        ge=1,
        description="number of the archive's checkpoints, spread evenly up to the last one, at which the gradients of "
        "all examples are compared, without their augmentation (all checkpoints if the archive has fewer), from an "
        "archive of any kind: the time grows with checkpoints x training examples, for as many queries as have 256 MB "
        "of gradients, not with the steps; null: in each step, of its batch, as the training saw it",
    )


class Counterfactual(Measured):
    """Counterfactual influence: the derivative of each query's answer by the weight of each training example."""

    measure: Literal["margin", "logit", "loss", "unit"] = Field(
        "margin",
        description="what is differentiated: the margin log p/(1-p) of a class, its logit, its loss, or a unit's "
        "activation, its output before a nonlinearity, mean over positions",
    )
    target: Literal["given", "predicted"] = Field(
        "given", description="the class of the measure: the query's given label, or the predicted class"
    )
    precision: Literal["float32", "float64"] = Field(
        "float32", description="arithmetic of the derivatives; the training's own weights stay as they are"
    )
    retrainings: int = Field(
        8, ge=2, le=1000, description="trainings in the same order without some examples, which test the derivatives"
    )
    left_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02, description="share of the training set that each of these trainings leaves out at random"
    )


class Evaluation(Section):
    """Evaluations that show how far explanations can be trusted; each costs work of its own."""

    mislabel: bool = Field(
        False, description="detection of wrong labels by self-attribution, for a data set with `noise`"
    )
    randomisation: bool = Field(False, description="comparison with a network trained on permuted labels")
    lds: Lds | None = None


class Index(Section):
    """Coefficients of every update on a basis of query directions, from which other queries are explained at once."""

    references: int = Field(128, ge=2, le=1024, description="queries whose directions make the basis")
    held_out: int = Field(32, ge=1, le=1024, description="further queries, on which the error is measured")
    coefficients: int = Field(64, ge=1, le=1024, description="coefficients kept of each update, per step and layer")
    axes: int = Field(
        32,
        ge=1,
        le=256,
        description="axes of a layer's inputs, on which a Gram matrix of axes (axes + 1) / 2 numbers is kept of each "
        "update, for the norms of its changes",
    )


class Aggregate(Section):
    """Sums of the updates by class and epoch, from which class shares are read without the archive."""

    groups: int = Field(10, ge=1, description="largest number of groups of classes; more classes share a group")


class Derive(Section):
    """Summaries of a training's updates, made on the machine of the training as long as it reads its archive."""

    index: Index | None = None
    aggregate: Aggregate | None = None


class Tracing(Asked):
    """Question 4: who taught the network that?"""

    networks: tuple[Name, ...] = Field(
        min_length=1, description="networks that the question is about; their training has `record`"
    )
    layers: Literal["all"] | tuple[str, ...] = Field("all", description="recorded layers to trace, by module name")
    units: tuple[Annotated[str, Field(pattern=UNIT)], ...] = Field(
        (), description="units of recorded layers to trace by themselves, as LAYER:INDEX: neurons or filters"
    )
    anchor: Literal["final", "displacement"] = Field(
        "final",
        description="representation on which updates are projected: final, of the final weights (Eq. 6), or of their "
        "change",
    )
    bias: bool = Field(False, description="count a layer's bias as one of its weights")
    queries: Queries = Queries()
    k: Annotated[int, Field(ge=1)] = Field(10, description="number of influential examples kept at either end")
    scores: tuple[Literal["gamma", "cosine", "logit", "tracin"], ...] = Field(
        ("gamma", "logit"),
        min_length=1,
        description="scores that are summed over an example's steps; logit is for the output layer only; tracin is the "
        "product of the query's loss gradient and the example's, at the weights of each step or of some checkpoints",
    )
    counterfactual: Counterfactual | None = Field(
        None, description="influence through the whole training, from an archive with exact weights of every step"
    )
    tracin: Tracin = Tracin()
    split: Literal["example", "equal"] = Field(
        "example",
        description="each example's part of a step's gamma: example, that of its own gradient where the archive knows "
        "it, and an equal part elsewhere; equal, an equal part",
    )
    window: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="first step and past-the-end step that count; default: all steps"
    )
    suspects: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="number of training images on the page whose labels are probably wrong; default: not ranked"
    )
    ridges: Ridges = Ridges()
    derive: Derive = Derive()
    evaluation: Evaluation = Evaluation()

    DISTINCT: ClassVar = ("networks", "scores", "layers", "units")

    @model_validator(mode="after")
    def _consistent(self) -> "Tracing":
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window: expected a first step before the end {self.window[1]}, found {self.window[0]}")
        if not self.layers and not self.units:
            raise ValueError("layers: expected a layer, or one of `units`, found neither; leave it out for all layers")
        if "gamma" not in self.scores:
            raise ValueError("scores: expected gamma among them, found none; add it, as all pages need it")
        if self.tracin != Tracin() and "tracin" not in self.scores:
            raise ValueError("tracin: expected tracin among `scores`, found none; add it, or leave `tracin` out")
        return self

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from super().names()
        if self.queries.data is not None:
            yield "queries.data", "data", self.queries.data

    def check_private(self, trainings: Mapping[str, tuple[str, str]], shown: str) -> None:
        """Raise ValueError where a query may be a training image that the report must not show."""
        split, data = self.queries.split, self.queries.data
        if split in {trained for _, trained in trainings.values()}:
            raise ValueError(
                f"report.training_images: with {shown!r} expected queries from a split without training, "
                f"found {split!r}; set `tracing.queries.split` to another"
            )
        for name in self.networks:
            if name in trainings and data not in (None, trainings[name][0]):
                raise ValueError(
                    f"tracing.queries.data: with `report.training_images: {shown}` expected "
                    f"{trainings[name][0]!r}, the training data of {name!r}, found {data!r}, "
                    "which may hold the same images; leave it out"
                )
