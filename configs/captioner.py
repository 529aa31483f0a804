"""The captioner of question 3 in a config: a model that describes what the regions of a neuron share (MILAN)."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.section import MAX_SEED, Location, Name, Section, check_distinct, kind_by_default


class DrawnCaptions(Section):
    """Regions of drawn images, with captions that follow from their label maps."""

    kind: Literal["drawn"] = "drawn"
    count: int = Field(1000, ge=20, description="number of drawn images, each with about 12 captions")


class CaptionFiles(Section):
    """Regions of image files, with captions of a table."""

    kind: Literal["files"]
    path: Location = Field(
        description="local folder or .zip with regions.csv, whose columns image, mask and text name files and captions"
    )
    origin: str = Field(
        "",
        description="column that names the origin of a region, such as the photograph of a crop; regions of one origin "
        "are never divided between training and test; default: the image",
    )


Captions = Annotated[DrawnCaptions | CaptionFiles, Field(discriminator="kind"), kind_by_default(DrawnCaptions)]


class CaptionerWeights(Section):
    """A trained captioner from a file, such as a published one."""

    path: Location = Field(description="local file with the tensors of MILAN's decoder and language model")
    words: Location | None = Field(
        None, description="text file with the vocabulary, a word in each line, in order; default: that of the file"
    )


class Captioner(Section):
    """The captioner of detector `milan`: a pyramid encoder, a decoder and a language model."""

    encoder: Name = Field(description="network of the config that encodes regions")
    layers: tuple[str, ...] = Field(
        min_length=1, description="names of the encoder's modules whose outputs are pooled under each region's mask"
    )
    captions: Captions = Field(DrawnCaptions(), description="regions with captions from which the captioner learns")
    weights: CaptionerWeights | None = Field(None, description="a trained captioner; default: trained on `captions`")
    exemplars: int = Field(15, ge=1, le=100, description="number of images of a neuron, those of highest activation")
    quantile: float = Field(
        0.01, gt=0, lt=1, description="share of a neuron's activations above its threshold, the regions of its images"
    )
    embedding: int = Field(128, ge=1, description="length of the vector of a word")
    hidden: int = Field(512, ge=1, description="number of hidden units of the decoder and of the language model")
    held_out: float = Field(
        0.1, gt=0, lt=0.5, description="share of the origins held out to stop the training, and the same to test it"
    )
    epochs: int = Field(100, ge=1, description="passes over the regions at most")
    patience: int = Field(4, ge=1, description="epochs without a lower held-out loss after which the training ends")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of first weights, of drawn images and of the order")

    @field_validator("layers")
    @classmethod
    def _different(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        check_distinct("layers", layers)
        return layers

    @model_validator(mode="after")
    def _trained_or_given(self) -> "Captioner":
        if self.weights is not None and self.captions != DrawnCaptions():
            raise ValueError("captions: expected no captions with `weights`, found some; remove one of the two")
        return self
