"""Question 2 in a config: which features decide a class?"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from configs.asked import OnSplits
from configs.section import Name, Section
from configs.training import Course, Positive, Training

Noise = Literal["standard", "zero", "feature_moments"]
Scope = Literal["label", "predicted", "union"]


class Coverage(Section):
    """As many features of an image as hold a share of its l1 norm."""

    coverage: float = Field(gt=0, le=1, description="share of the l1 norm")


def _several(value: object) -> object:
    """Take a single setting as a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


class Ablation(Section):
    """Noise in place of features (Table 8): does the network need the influential ones?"""

    noises: tuple[Noise, ...] = Field(
        ("standard",),
        min_length=1,
        description="standard: N(0, 1), the authors'; zero; feature_moments: each feature's own mean and deviation",
    )
    scopes: tuple[Scope, ...] = Field(
        ("label",),
        min_length=1,
        description="whose features: of the image's own class (the authors'), of the predicted one, or of all classes",
    )
    draws: int = Field(5, ge=1, description="draws of the noise, over which mean and deviation are stated")


class Retraining(Course):
    """How a decomposed layer, or the whole network with it, is trained further."""

    def training(self, data: str, learn: str, evaluate: str) -> Training:
        """Return the settings as those of a training."""
        given: dict[str, Any] = self.model_dump(mode="json")  # Any: YAML
        return Training.model_validate({**given, "data": data, "split": learn, "evaluate": evaluate})


class RetrainingScopes(Section):
    """What is trained after the decomposition; each costs a training of its own."""

    head: Retraining | None = Field(None, description="the decomposed layer alone, on stored features")
    network: Retraining | None = Field(None, description="the whole network, as the paper does")


class Decomposition(OnSplits):
    """Question 2: which features decide a class?"""

    networks: tuple[Name, ...] = Field(min_length=1, description="networks to ask about; their head is a linear layer")
    learn: Name = Field("train", description="split from which the sets of features come")
    evaluate: Name = Field("val", description="split on which the decomposed layer is tested")
    k1: Annotated[tuple[Positive | Coverage, ...], BeforeValidator(_several)] = Field(
        (5,), min_length=1, description="features counted per image; of a list the first is used beyond the grid"
    )
    k2: Annotated[tuple[Positive, ...], BeforeValidator(_several)] = Field(
        (5,), min_length=1, description="features kept per class; of a list the first is used beyond the grid"
    )
    rank_by: Literal["abs", "value", "contribution"] = Field(
        "abs", description="what makes a feature strong: |x| (the paper), x, or weight times x in the class's logit"
    )
    group_by: Literal["label", "prediction"] = Field(
        "label", description="whose images a class has; with prediction no label is used"
    )
    draws: int = Field(20, ge=1, description="random sets that the chosen ones are compared with")
    sample_need: tuple[Positive, ...] = Field((), description="also find the sets from the first n images a class")
    ablation: Ablation | None = Ablation()
    retraining: RetrainingScopes = RetrainingScopes()
    gallery: int = Field(8, ge=0, description="images shown with their class's feature maps, spread over the classes")
    dtype: Literal["float32", "float16"] = Field("float32", description="in which features are stored")

    DISTINCT: ClassVar = ("networks", "k1", "k2", "sample_need")

    @model_validator(mode="after")
    def _consistent(self) -> "Decomposition":
        if self.sample_need and self.group_by == "prediction":
            raise ValueError(
                "sample_need: counts the first images of each label, which group_by prediction does not read"
            )
        if self.retraining.head is not None and self.retraining.head.augment is not None:
            raise ValueError(
                "retraining.head.augment: the head learns from stored features, only `network` sees images"
            )
        return self
