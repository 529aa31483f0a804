"""What the sections of all questions share."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.section import Name, Section


class Asked(Section):
    """The base of a question's section: it names the networks that the question is about."""

    networks: tuple[Name, ...] = Field(min_length=1, description="networks that the question is about")

    # keys whose entries must differ from each other
    DISTINCT: ClassVar[tuple[str, ...]] = ("networks",)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for key in self.DISTINCT:
            values = getattr(self, key)
            if not isinstance(values, str) and len(set(values)) != len(values):
                raise ValueError(f"{key}: expected different entries, found the same one twice; remove one")
        return self

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from (("networks", "networks", name) for name in self.networks)

    def check_private(self, trainings: Mapping[str, tuple[str, str]], shown: str) -> None:
        """Raise ValueError where the answer would show training images that the report must not show.

        Parameters
        ----------
        trainings : data set and split that each network is trained on
        shown : `report.training_images`, "ids" or "none"
        """


class OnSplits(Asked):
    """The base of a question that learns from one split of a data set and is evaluated on another."""

    data: Name | None = Field(
        None, description="data set of the question; default: the network's training data, or the only data set"
    )
    learn: Name = Field("train", description="split from which the question learns")
    evaluate: Name = Field("val", description="split on which the answer is tested")
    gallery: int | None = Field(8, ge=0, description="number of images shown in the report, spread over the classes")
    dtype: Literal["float32", "float16"] = Field("float32", description="type of the stored activations")

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from super().names()
        if self.data is not None:
            yield "data", "data", self.data

    def check_private(self, trainings: Mapping[str, tuple[str, str]], shown: str) -> None:
        """Raise ValueError where the gallery would show training images that the report must not show."""
        trained = {split for _, split in trainings.values()}
        if self.gallery != 0 and self.evaluate in {self.learn, *trained}:
            raise ValueError(
                f"report.training_images: with {shown!r} expected a gallery without training images, "
                f"found split {self.evaluate!r}; "
                "set `{section}.gallery: 0` or `{section}.evaluate` to another split"
            )
