"""Question 2 in a config: which features decide a class?"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from configs.asked import OnSplits
from configs.section import Name, Section, check_distinct
from configs.training import Course, Positive, Training

Noise = Literal["standard", "zero", "feature_moments"]
Scope = Literal["label", "predicted", "union"]


class Coverage(Section):
    """The number of features of an image that hold a share of its l1 norm."""

    coverage: float = Field(gt=0, le=1, description="share of an image's l1 norm that its counted features hold")


def _several(value: object) -> object:
    """Return a single setting as a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


class Ablation(Section):
    """Ablation (Table 8): noise replaces features, to see whether the network needs the influential ones."""

    noises: tuple[Noise, ...] = Field(
        ("standard",),
        min_length=1,
        description="noises that replace features: standard, which is N(0, 1) as the authors use; zero; "
        "feature_moments, with each feature's own mean and deviation",
    )
    scopes: tuple[Scope, ...] = Field(
        ("label",),
        min_length=1,
        description="classes whose features are replaced: label, the image's own class (the authors'); predicted, the "
        "predicted class; union, all classes",
    )
    draws: int = Field(5, ge=1, description="number of noise draws, over which mean and deviation are reported")

    @model_validator(mode="after")
    def _distinct(self) -> "Ablation":
        check_distinct("noises", self.noises)
        check_distinct("scopes", self.scopes)
        return self


class Retraining(Course):
    """Settings for further training of a decomposed layer, or of the whole network with it."""

    def training(self, data: str, learn: str, evaluate: str) -> Training:
        """Return the settings as those of a training."""
        given: dict[str, Any] = self.model_dump(mode="json")  # Any: YAML
        return Training.model_validate({**given, "data": data, "split": learn, "evaluate": evaluate})


class RetrainingScopes(Section):
    """What is trained after the decomposition; each entry costs a training of its own."""

    head: Retraining | None = Field(None, description="training of the decomposed layer alone, on stored features")
    network: Retraining | None = Field(None, description="training of the whole network, as in the paper")


class Decomposition(OnSplits):
    """Question 2: which features decide a class?"""

    networks: tuple[Name, ...] = Field(
        min_length=1, description="networks that the question is about; their head is a linear layer"
    )
    learn: Name = Field("train", description="split from which the sets of features come")
    evaluate: Name = Field("val", description="split on which the decomposed layer is tested")
    k1: Annotated[tuple[Positive | Coverage, ...], BeforeValidator(_several)] = Field(
        (5,),
        min_length=1,
        description="features counted per image; a list makes a grid, and all else uses its first entry",
    )
    k2: Annotated[tuple[Positive, ...], BeforeValidator(_several)] = Field(
        (5,),
        min_length=1,
        description="features kept per class; a list makes a grid, and all else uses its first entry",
    )
    rank_by: Literal["abs", "value", "contribution"] = Field(
        "abs",
        description="value by which the top-k features of an image are chosen: abs, |x| (the paper); value, x; "
        "contribution, weight times x in the class's logit",
    )
    group_by: Literal["label", "prediction"] = Field(
        "label", description="grouping of images into classes: by label, or by prediction without any label"
    )
    draws: int = Field(20, ge=1, description="number of random feature sets to compare the chosen sets with")
    sample_need: tuple[Positive, ...] = Field(
        (), description="numbers of images per class; the sets are also found from that many first images"
    )
    ablation: Ablation | None = Ablation()
    retraining: RetrainingScopes = RetrainingScopes()
    gallery: int = Field(
        8, ge=0, description="number of images shown with their class's feature maps, spread over the classes"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="type of the stored features")

    DISTINCT: ClassVar = ("networks", "k1", "k2", "sample_need")

    @model_validator(mode="after")
    def _consistent(self) -> "Decomposition":
        if self.sample_need and self.group_by == "prediction":
            raise ValueError(
                "sample_need: expected `group_by: label`, found prediction, which reads no label; "
                "leave sample_need out, or group by label"
            )
        if self.retraining.head is not None and self.retraining.head.augment is not None:
            raise ValueError(
                "retraining.head.augment: expected none, since the head learns from stored features, found one; "
                "move it to `retraining.network`"
            )
        return self
