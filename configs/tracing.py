"""Question 4 in a config: who taught the network that?"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from configs.asked import Asked
from configs.section import Name, Section, Share

MAX_RETRAININGS = 10_000  # each is a training


class Queries(Section):
    """The samples whose representations are explained."""

    data: Name | None = Field(None, description="data set; default: the network's training data")
    split: Name = Field("val", description="split of the data set")
    count: int = Field(8, ge=1, description="number of samples, spread over the classes, first samples first")


class Ridges(Section):
    """Densities of the step cosines by class (Alg. 3)."""

    bandwidth: float = Field(0.1, gt=0, description="cosine units, or the factor on the class's own deviation")
    kind: Literal["absolute", "scott-factor"] = Field("absolute", description="what the bandwidth means")
    classes: int = Field(10, ge=1, description="classes shown: those of the highest predicted probability")


class Lds(Section):
    """Linear datamodelling score: how well summed attributions foretell networks trained on subsets."""

    subsets: int = Field(32, ge=2, description="random subsets of the training set")
    share: Share = Field(0.5, description="share of the training set in each subset")
    retrainings: int = Field(
        2, ge=1, description="networks per subset, each from its own seed; 2 or more give a ceiling"
    )

    @model_validator(mode="after")
    def _can_be_trained(self) -> "Lds":
        if self.subsets * self.retrainings > MAX_RETRAININGS:
            asked = f"{self.subsets} x {self.retrainings}"
            raise ValueError(f"subsets x retrainings: at most {MAX_RETRAININGS:,} networks, found {asked}")
        return self


class Evaluation(Section):
    """How far explanations can be trusted; each costs work of its own."""

    mislabel: bool = Field(False, description="find flipped labels by self-attribution, where a data set has `noise`")
    randomisation: bool = Field(False, description="compare with a network trained on permuted labels")
    lds: Lds | None = None


class Tracing(Asked):
    """Question 4: who taught the network that?"""

    networks: tuple[Name, ...] = Field(min_length=1, description="networks to ask about; their training has `record`")
    layers: Literal["all"] | tuple[str, ...] = Field("all", description="recorded layers to trace, by module name")
    anchor: Literal["final", "displacement"] = Field(
        "final", description="representation projected on: of the final weights (Eq. 6) or of their change"
    )
    bias: bool = Field(False, description="count a layer's bias to its weights")
    queries: Queries = Queries()
    k: Annotated[int, Field(ge=1)] = Field(10, description="influential examples kept at either end")
    scores: tuple[Literal["gamma", "cosine", "logit"], ...] = Field(
        ("gamma", "logit"), min_length=1, description="what is summed over an example's steps; logit: output layer only"
    )
    window: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="first and past-the-end step that count; default: all"
    )
    ridges: Ridges = Ridges()
    evaluation: Evaluation = Evaluation()

    DISTINCT: ClassVar = ("networks", "scores", "layers")

    @model_validator(mode="after")
    def _consistent(self) -> "Tracing":
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window: the first step {self.window[0]} is not before the end {self.window[1]}")
        if "gamma" not in self.scores:
            raise ValueError("scores: gamma is what all pages rest on, name it too")
        return self

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from super().names()
        if self.queries.data is not None:
            yield "queries.data", "data", self.queries.data

    def check_private(self, trainings: Mapping[str, tuple[str, str]], shown: str) -> None:
        """Raise ValueError where queries may be training images that the report must not show."""
        split, data = self.queries.split, self.queries.data
        if split in {trained for _, trained in trainings.values()}:
            raise ValueError(
                f"report.training_images: with {shown!r} the queries cannot come from split {split!r}, "
                "which is trained on; set `tracing.queries.split` to another"
            )
        for name in self.networks:
            if name in trainings and data not in (None, trainings[name][0]):
                raise ValueError(
                    f"tracing.queries.data: with `report.training_images: {shown}` the queries must come from the data "
                    f"set that {name!r} is trained on, {trainings[name][0]!r}: {data!r} may hold the same images; "
                    "leave it out"
                )
