"""The config of a run: data sets, networks, seeds, cluster and questions, as frozen pydantic models."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.activations import Activations
from configs.asked import Asked
from configs.cluster import Cluster
from configs.concepts import Concepts
from configs.datasets import (
    AnyDataSet,
    Broden,
    Csv,
    DataSet,
    GraphFile,
    HuggingFace,
    ImageFolder,
    ImageNet,
    ImportedData,
    LabelNoise,
    MiniBroden,
    Npz,
    SequenceFile,
    SklearnDigits,
    Texts,
    TorchGeometric,
)
from configs.decomposition import Decomposition
from configs.interpretation import Interpretation
from configs.section import MAX_SEED, SIDE, Folders, Location, Name, Section, Side, check_store
from configs.starts import trainings_in_order
from configs.tracing import Tracing
from configs.training import Training
from configs.updates import FromUrl

__all__ = [
    "AnyDataSet",
    "Broden",
    "Config",
    "Csv",
    "DataSet",
    "GraphFile",
    "HuggingFace",
    "ImageFolder",
    "ImageNet",
    "ImportedData",
    "LabelNoise",
    "MiniBroden",
    "Network",
    "Npz",
    "Preprocessing",
    "Report",
    "SequenceFile",
    "SklearnDigits",
    "Texts",
    "TorchGeometric",
]


class Preprocessing(Section):
    """Steps from a decoded uint8 image to the network's input, in this order: mode, resize, crop, scale, normalise."""

    like: str | None = Field(
        None, description="torchvision weights entry whose transforms replace settings that are missing here"
    )
    mode: Literal["RGB", "L"] = Field("RGB", description="image mode of the network's input")
    convert: bool = Field(False, description="convert images of another mode; otherwise such an image is an error")
    resize: Annotated[int, Field(ge=1), SIDE] | tuple[Side, Side] | None = Field(
        None, description="size in pixels after resizing: the shorter side (one number), or height and width"
    )
    crop: Annotated[int, Field(ge=1), SIDE] | None = Field(None, description="side of the centre crop in pixels")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="interpolation of the resize")
    mean: tuple[float, ...] = Field((0.0,), description="mean to subtract from each channel, on the 0..1 scale")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,), description="standard deviation to divide each channel by, on the 0..1 scale"
    )


class Network(Section):
    """A model with weights from a file, with a training, or with the archive of a training elsewhere."""

    model: str = Field(
        description="model of the network: a name from `tasks.io.networks`, or an import path module:function"
    )
    arguments: dict[str, Any] = Field(
        {}, description="keyword arguments of the model's builder"
    )  # Any: the builder's own
    weights: Location | None = Field(
        None,
        description="local path of the weights, a state dict: .pt/.pth (tensors only) or .safetensors; or `builder`, "
        "where the model's function returns trained weights",
    )
    train: Training | None = None
    updates: FromUrl | None = None
    preprocessing: Preprocessing | str = Field(
        Preprocessing(),
        description="preprocessing of the images: settings, or the name of a torchvision weights entry whose "
        "transforms are used, such as ResNet50_Weights.IMAGENET1K_V2 (nothing is downloaded)",
    )

    @model_validator(mode="after")
    def _has_weights(self) -> "Network":
        given = [name for name in ("weights", "train", "updates") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected one of `weights`, `train` and `updates`, found {found}; keep one")
        return self


class Report(Section):
    """Settings of the report."""

    training_images: Literal["show", "ids", "none"] = Field(
        "show",
        description="what the report shows of training images: show, the images; ids, their ids alone; none, neither",
    )


class Config(Section):
    """The config of a run."""

    name: Name = Field(description="name of the run, under which its records and its report are stored")
    store: str = Field("lore/", min_length=1, description="local folder or s3://bucket/prefix that holds all results")
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(
        (0,), min_length=1, description="seeds; all trainings and questions run once for each seed"
    )
    cluster: Cluster = Cluster()
    code: Folders = Field((), description="folders of your own modules, searched last, and on workers too")
    data: dict[Name, AnyDataSet] = Field(min_length=1)
    networks: dict[Name, Network] = Field(min_length=1)
    activations: Activations | None = None
    interpretation: Interpretation | None = None
    decomposition: Decomposition | None = None
    concepts: Concepts | None = None
    tracing: Tracing | None = None
    report: Report = Report()

    @field_validator("store")
    @classmethod
    def _store_known(cls, url: str) -> str:
        return check_store(url)

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: expected different entries, found the same one twice; remove one")
        for name, network in self.networks.items():
            if network.train is not None:
                _check_name(f"networks.{name}.train.data", network.train.data, self.data)
            if network.updates is not None:
                self.learned(name)
        self.trainings_in_order()
        for section, asked in self.asked.items():
            for key, kind, name in asked.names():
                _check_name(f"{section}.{key}", name, getattr(self, kind))
            if hasattr(asked, "data"):
                for name in asked.networks:
                    self.data_of(name, section)
        return self

    @model_validator(mode="after")
    def _private(self) -> "Config":
        trained = {name: found for name in self.networks if (found := self.learned(name)) is not None}
        if (shown := self.report.training_images) != "show":
            for section, asked in self.asked.items():
                try:
                    asked.check_private(trained, shown)
                except ValueError as error:
                    raise ValueError(str(error).replace("{section}", section)) from None
        return self

    @property
    def asked(self) -> dict[str, Asked]:
        """The sections of the config's questions, by name."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, Asked)}

    def trainings_in_order(self) -> list[str]:
        """Return the names of the networks with a training, each after the network that it starts from."""
        return trainings_in_order({name: network.train for name, network in self.networks.items()})

    def learned(self, network: str) -> tuple[str, str] | None:
        """Return the data set and the split that a network was trained on, None where only its weights are known."""
        train, updates = self.networks[network].train, self.networks[network].updates
        if train is not None:
            return train.data, train.split
        if updates is None:
            return None
        if updates.data is None and len(self.data) > 1:
            raise ValueError(
                f"networks.{network}.updates.data: expected one of {', '.join(self.data)}, found none; name one"
            )
        name = updates.data or next(iter(self.data))
        _check_name(f"networks.{network}.updates.data", name, self.data)
        return name, updates.split

    def data_of(self, network: str, section: str) -> str:
        """Return the data set that a section (activations, interpretation, decomposition) uses for `network`."""
        learned = self.learned(network)
        asked: str | None = getattr(self, section).data
        if asked is not None:
            name = asked
        elif learned is not None:
            name = learned[0]
        elif len(self.data) == 1:
            name = next(iter(self.data))
        else:
            raise ValueError(f"{section}.data: expected one of {', '.join(self.data)}, found none; name one")
        _check_name(f"{section}.data", name, self.data)
        return name


def _check_name(key: str, name: str, names: Mapping[str, object]) -> None:
    """Raise ValueError unless `name` is one of `names`."""
    if name not in names:
        raise ValueError(f"{key}: expected one of {', '.join(names)}, found {name!r}")
