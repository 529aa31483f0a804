"""The config of a run: data sets, networks, seeds, cluster and questions, as frozen pydantic models."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.activations import Activations
from configs.asked import Asked
from configs.cluster import Cluster
from configs.decomposition import Decomposition
from configs.interpretation import Interpretation
from configs.section import SIDE, Location, Name, Paths, Section, Share, Side, check_store
from configs.tracing import Tracing
from configs.training import Training

MAX_SEED = 2**63 - 1  # what an int64 holds

# ------------------------------------------------------------------------------------------ data sets


class LabelNoise(Section):
    """Wrong labels on purpose, to see whether tracing finds them; the true ones stay in the manifest."""

    share: Share = Field(description="share of each split's samples")
    kind: Literal["flip", "permute"] = Field(
        "flip", description="flip: to another class, all equally likely; permute: exchanged among the chosen samples"
    )
    splits: tuple[Name, ...] = Field(("train",), min_length=1, description="splits that are disturbed")
    seed: int = Field(0, ge=0, description="of the draw")


class DataSet(Section):
    """What every kind of data set may say."""

    split: dict[Name, Share] | None = Field(
        None, description="shares by split name, drawn per class; only for sources whose samples come unsplit"
    )
    split_seed: int = Field(0, ge=0, description="seed of the drawn split")
    per_class: Annotated[int, Field(ge=1)] | dict[Name, Annotated[int, Field(ge=1)]] | None = Field(
        None, description="keep the first n samples of each class (one number, or one per split), by sample id"
    )
    class_names: tuple[str, ...] | dict[int, str] | None = Field(
        None, description="names by label, where the source has none or poor ones"
    )
    noise: LabelNoise | None = Field(None, description="wrong labels on purpose")

    @model_validator(mode="after")
    def _shares_fit(self) -> "DataSet":
        if self.split == {}:
            raise ValueError("split: no share is named; leave it out, or name one")
        if self.split is not None and sum(self.split.values()) > 1 + 1e-9:
            raise ValueError(f"split: the shares sum to {sum(self.split.values()):g}, at most 1 is possible")
        return self


class SklearnDigits(DataSet):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, levels 0..16 scaled to 0..255."""

    source: Literal["sklearn-digits"]
    split: dict[Name, Share] | None = {"train": 0.8, "val": 0.2}


class Npz(DataSet):
    """NumPy archives of images (N, H, W) or (N, H, W, C) uint8 and labels (N,) of any integer type."""

    source: Literal["npz"]
    paths: dict[Name, Location | Paths] = Field(
        description="archive(s) by split; split name `all` with `split` draws one"
    )
    images: str = Field("images", description="name of the image array in the archive")
    labels: str = Field("labels", description="name of the label array in the archive")
    classes: dict[int, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by label in the archive; default: the labels themselves"
    )


class ImageFolder(DataSet):
    """A folder per class below each split's folder, local or at any fsspec URL."""

    source: Literal["image-folder"]
    paths: dict[Name, Location] = Field(description="folder by split; split name `all` with `split` draws one")
    classes: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by class folder; default: 0, 1, ... in sorted order"
    )


class Csv(DataSet):
    """A table of image paths and labels per split."""

    source: Literal["csv"]
    paths: dict[Name, Location] = Field(description="csv file by split; split name `all` with `split` draws one")
    root: Location = Field(
        "", description="folder or URL that the paths in the table are relative to; default: the table's own folder"
    )
    path_column: str = Field("path", description="column with the image paths")
    label_column: str = Field("label", description="column with the labels")
    classes: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by label; default: the labels themselves, which must be integers"
    )


class ImageNet(DataSet):
    """torchvision's ImageNet layout: ROOT/train/WNID/*.JPEG, ROOT/val/WNID/*.JPEG, optionally ROOT/meta.bin."""

    source: Literal["imagenet"]
    root: Location = Field(description="folder that holds train/ and val/")


class ImportedData(DataSet):
    """Data of the user's own: an import path to a function that returns a `tasks.io.sources.Source`."""

    source: Literal["import"]
    object: str = Field(pattern=r"^[\w.]+:[\w.]+$", description="module:function")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the function")  # Any: the user's own


AnyDataSet = Annotated[SklearnDigits | Npz | ImageFolder | Csv | ImageNet | ImportedData, Field(discriminator="source")]

# ------------------------------------------------------------------------------------------- networks


class Preprocessing(Section):
    """From a decoded uint8 image to the network's input, in this order: mode, resize, crop, scale, normalise."""

    like: str | None = Field(
        None, description="torchvision weights entry whose transforms fill what is not given here, as a bare name does"
    )
    mode: Literal["RGB", "L"] = Field("RGB", description="image mode the network takes")
    convert: bool = Field(False, description="convert images of another mode; otherwise they are an error")
    resize: Annotated[int, Field(ge=1), SIDE] | tuple[Side, Side] | None = Field(
        None, description="pixels: shorter side (one number) or height and width"
    )
    crop: Annotated[int, Field(ge=1), SIDE] | None = Field(None, description="pixels: side of the centre crop")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="of the resize")
    mean: tuple[float, ...] = Field((0.0,), description="per channel, on the 0..1 scale")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), description="per channel, on the 0..1 scale")


class Network(Section):
    """A model with weights from a file, or with a training."""

    model: str = Field(description="a name that `tasks.io.networks` knows, or an import path module:function")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the builder")  # Any: the builder's own
    weights: Location | None = Field(
        None, description="state dict: .pt/.pth (tensors only) or .safetensors, a local path"
    )
    train: Training | None = None
    preprocessing: Preprocessing | str = Field(
        Preprocessing(),
        description="settings, or the name of a torchvision weights entry whose transforms are taken, "
        "such as ResNet50_Weights.IMAGENET1K_V2 (nothing is downloaded)",
    )

    @model_validator(mode="after")
    def _has_weights(self) -> "Network":
        if (self.weights is None) == (self.train is None):
            found = "neither" if self.weights is None else "both"
            raise ValueError(f"a network has either `weights` or `train`, here it has {found}")
        return self


# ------------------------------------------------------------------------------------------ questions


class Report(Section):
    """What the report shows."""

    training_images: Literal["show", "ids", "none"] = Field(
        "show", description="with none, no training image and no id of one leaves the store"
    )


class Config(Section):
    """A run."""

    name: Name = Field(description="name of the run: its records and its report bear it")
    store: str = Field("lore/", min_length=1, description="local folder or s3://bucket/prefix that holds all results")
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(
        (0,), min_length=1, description="one run of everything each"
    )
    cluster: Cluster = Cluster()
    data: dict[Name, AnyDataSet] = Field(min_length=1)
    networks: dict[Name, Network] = Field(min_length=1)
    activations: Activations | None = None
    interpretation: Interpretation | None = None
    decomposition: Decomposition | None = None
    tracing: Tracing | None = None
    report: Report = Report()

    @field_validator("store")
    @classmethod
    def _store_known(cls, url: str) -> str:
        return check_store(url)

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: an entry stands twice")
        for name, network in self.networks.items():
            if network.train is not None:
                _known(f"networks.{name}.train.data", network.train.data, self.data)
        for section, asked in self.asked.items():
            for key, kind, name in asked.names():
                _known(f"{section}.{key}", name, getattr(self, kind))
            if hasattr(asked, "data"):
                for name in asked.networks:
                    self.data_of(name, section)
        return self

    @model_validator(mode="after")
    def _private(self) -> "Config":
        trained = {name: (net.train.data, net.train.split) for name, net in self.networks.items() if net.train}
        if (shown := self.report.training_images) != "show":
            for section, asked in self.asked.items():
                try:
                    asked.check_private(trained, shown)
                except ValueError as error:
                    raise ValueError(str(error).replace("{section}", section)) from None
        return self

    @property
    def asked(self) -> dict[str, Asked]:
        """The sections of the questions that the config asks, by name."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, Asked)}

    def data_of(self, network: str, section: str) -> str:
        """Return the data set that a section (activations, interpretation, decomposition) uses for `network`."""
        training = self.networks[network].train
        asked: str | None = getattr(self, section).data
        if asked is not None:
            name = asked
        elif training is not None:
            name = training.data
        elif len(self.data) == 1:
            name = next(iter(self.data))
        else:
            raise ValueError(f"{section}.data: which of {', '.join(self.data)}? network {network!r} does not say")
        _known(f"{section}.data", name, self.data)
        return name


def _known(key: str, name: str, known: Mapping[str, object]) -> None:
    """Raise unless `name` is one of `known`."""
    if name not in known:
        raise ValueError(f"{key}: unknown {name!r}; known: {', '.join(known)}")
