"""Question 3 in a config: which concepts do neurons hold, and when in training did they come?"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from configs.activations import ChannelLayout
from configs.asked import Asked
from configs.captioner import Captioner
from configs.section import SIDE, Location, Name, Parameters, Section, Share, check_distinct, kind_by_default

LABELS = "labels"  # the words of the probing set itself
MILAN = "milan"  # the detector that describes neurons by a captioner


class Probe(Section):
    """The probing set: the images on which neurons are looked at."""

    data: Name = Field(description="data set of the probing images; its labels are the words unless `words` says more")
    split: Name | None = Field(None, description="split of the probing images; default: all images")
    size: Annotated[int, Field(ge=1), SIDE] | None = Field(
        None,
        description="height and width in pixels of the probing images, which are resized whole; default: `crop` or "
        "`resize` of the network's preprocessing",
    )


class Tiny(Section):
    """A small dual encoder that layerlore trains on drawn images; it knows the words of `mini-broden` only."""

    kind: Literal["tiny"] = "tiny"
    steps: int = Field(700, ge=1, description="number of training steps, each on 64 newly drawn images")
    seed: int = Field(0, ge=0, description="seed of the drawn images and of the dual encoder's training")


class OpenClip(Section):
    """A model of the open_clip package, from local files."""

    kind: Literal["open-clip"]
    model: str = Field("", description="name of the architecture in open_clip, such as ViT-B-32; not for a folder")
    path: Location = Field(
        description="local file with the weights, .pt (tensors only) or .safetensors, or a folder with "
        "open_clip_config.json"
    )


class Features(Section):
    """Features of a model that ran elsewhere: of images by sample id, and of texts by word."""

    kind: Literal["features"]
    path: Location = Field(description="npz file with the features")
    images: str = Field("images", description="name of the array (n, e) of image features")
    texts: str = Field("texts", description="name of the array (S, e) of text features")
    ids: str | None = Field(
        None, description="name of the array (n,) of sample ids; default: row i is the sample with id i"
    )
    words: str | None = Field(
        None, description="name of the array (S,) of words; default: row i is label i + 1 of the probing set"
    )


ImageText = Annotated[Tiny | OpenClip | Features, Field(discriminator="kind"), kind_by_default(Tiny)]


class Checkpoints(Section):
    """A folder of checkpoints of anybody's training: one file of weights for each snapshot."""

    folder: Location = Field(description="local folder with the files of weights")
    pattern: str = Field(
        r"(\d+)\.(?:pt|pth|safetensors)$",
        description="regular expression that the names of the files match; its first group is the number that orders "
        "them",
    )


class Watch(Section):
    """How the command `watch` follows a training, or a growing folder of checkpoints."""

    every: float = Field(2.0, gt=0, description="seconds between two looks for new snapshots")
    quiet: float = Field(
        5.0, ge=0, description="seconds without a change after which a file of a folder of checkpoints counts as whole"
    )
    falls: dict[Literal["d_anchor", "distinct", "mean_pairwise"], Share] = Field(
        {"d_anchor": 0.1, "distinct": 0.5},
        description="falls of diversity that raise an alert, each a share of the best value at an earlier snapshot: a "
        "rise of d_anchor, the distance from anchors to their nearest neurons; a fall of distinct, the number of "
        "concepts, or of mean_pairwise, the distance between neurons",
    )


class Attack(Section):
    """Attacks on labelled images by projected gradient descent (PGD, Madry et al. 2018), on every snapshot."""

    data: Name = Field(description="data set of the labelled images")
    split: Name = Field("test", description="split of the labelled images")
    networks: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        None, description="names of the attacked networks, whose classes are those of `data`; default: all"
    )
    epsilon: float = Field(8 / 255, gt=0, le=1, description="largest change of a pixel, on the 0..1 scale")
    step: float = Field(2 / 255, gt=0, le=1, description="change of each pixel in a step, on the 0..1 scale")
    steps: int = Field(50, ge=1, description="number of steps of an attack")
    restarts: int = Field(2, ge=1, description="number of attacks; an image counts as robust if all of them fail")
    loss: Literal["cross-entropy", "margin"] = Field(
        "cross-entropy",
        description="what an attack raises: cross-entropy; or margin, by which the logit of another class exceeds that "
        "of the label (Carlini & Wagner 2017), and which often changes more answers",
    )
    count: int = Field(500, ge=1, description="number of images")
    images: Literal["spread", "first"] = Field(
        "spread", description="which images of the split are attacked: spread, evenly over it; or the first"
    )
    seed: int = Field(0, ge=0, description="seed of the random starts")


class Teaching(Section):
    """Who taught neurons their concepts: training images and classes, for networks that question 4 asks about too."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="layers of `layers` whose neurons are traced, which must be possible; default: all where it is",
    )
    neurons: int = Field(8, ge=1, le=256, description="number of interpretable neurons of each layer that are traced")
    images: int = Field(
        5, ge=1, le=64, description="number of probing images that stand for a neuron: those that activate it most"
    )
    examples: int = Field(8, ge=1, le=100, description="number of training images kept of each neuron at either end")


class Concepts(Asked):
    """Question 3: which concepts do neurons hold, and when in training did they come?"""

    layers: tuple[str, ...] | dict[Name, tuple[str, ...]] = Field(
        min_length=1,
        description="names of modules whose outputs' channels are the neurons, for all networks or by network",
    )
    layout: ChannelLayout | dict[str, ChannelLayout] | None = Field(
        None,
        description="channel layout of outputs with positions, for all layers or by layer; default: derived from the "
        "network's operations",
    )
    pool: Literal["mean", "max", "first-token", "patches"] = Field(
        "mean",
        description="activation of a neuron on an image: mean or maximum over positions, all tokens included; that of "
        "the first token; or patches, the mean over the patches of tokens, without class and register tokens",
    )
    snapshots: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        "all",
        description="snapshots of the networks' trainings: all that `train.snapshots` names, of a lottery the masked "
        "starts and the end, or steps, of a lottery those of its last training; given weights are one",
    )
    checkpoints: dict[Name, Checkpoints] = Field(
        {}, description="folder of checkpoints by network, in place of the weights of the network"
    )
    probe: Probe
    words: tuple[Location, ...] = Field(
        (LABELS,),
        min_length=1,
        description="word lists: `labels` for the labels of the probing set, or text files with a word in each line; "
        "each list is a run of every detector of its own",
    )
    image_text: ImageText = Field(Tiny(), description="image-text model that relates images and words")
    text: Literal["own", "minilm"] = Field(
        "own",
        description="text encoder of the space of words: own, the image-text model's; minilm, all-MiniLM-L6-v2 "
        "(extra `text`)",
    )
    detectors: dict[str, Parameters] = Field(
        {"soft_wpmi": {}},
        min_length=1,
        description="detectors with their parameters, among them `temperature` and `tau`: cos, cos_cubed, wpmi, "
        "soft_wpmi, rank_reorder, network-dissection, milan",
    )
    attack: Attack | None = Field(
        None, description="attacks under which the accuracy of every snapshot is measured; default: none"
    )
    paradigms: dict[Name, Literal["standard", "poor", "diversity", "lottery", "adversarial", "fine-tuning"]] = Field(
        {},
        description="way of training by network, for the comparison of paradigms; default: what the settings of the "
        "training say, where a plain one is standard",
    )
    captioner: Captioner | None = Field(None, description="the captioner of detector milan; required for it")
    anchors: tuple[str, ...] | None = Field(
        None, description="words from which the distances of neurons are measured; default: all words"
    )
    track: dict[str, tuple[Annotated[int, Field(ge=0)], ...]] = Field(
        {}, description="neurons that the page follows over the snapshots, by layer; default: the most interpretable"
    )
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="temperatures of the ablation: the anchor distance at each of them"
    )
    plane: Literal["pca", "umap"] = Field(
        "pca", description="map of the space of words to the plane of the page; umap needs the extra `umap`"
    )
    shown: int = Field(24, ge=0, le=200, description="number of neurons of each layer that the page shows with images")
    seed: int = Field(0, ge=0, description="seed of the null distributions and of the planted neurons")

    teachers: Teaching | None = Field(
        Teaching(),
        description="who taught neurons their concepts, where `tracing` asks about the same network; null: left out",
    )
    watch: Watch = Watch()
    tensorboard: bool = Field(
        False,
        description="whether the report has files for TensorBoard: scalars, embeddings and images (extra "
        "`tensorboard`)",
    )

    DISTINCT: ClassVar = ("networks", "words", "temperatures")

    @field_validator("snapshots")
    @classmethod
    def _steps_rise(cls, steps: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(steps, tuple) and not steps:
            raise ValueError("expected all or rising steps, found none; name at least one")
        if isinstance(steps, tuple) and list(steps) != sorted(set(steps)):
            raise ValueError(f"expected rising steps, found {list(steps)}; sort them")
        return steps

    @model_validator(mode="after")
    def _fits(self) -> "Concepts":
        if isinstance(self.layers, dict) and self.layers.keys() != set(self.networks):
            raise ValueError(f"layers: expected layers of {', '.join(self.networks)}, found {', '.join(self.layers)}")
        for name in self.networks:
            if not self.layers_of(name):
                raise ValueError(f"layers.{name}: expected at least one layer, found none; name one")
            check_distinct("layers", self.layers_of(name))
        if (self.captioner is None) == (MILAN in self.detectors):
            expected, found = ("a captioner", "none") if self.captioner is None else ("detector milan", "none for it")
            raise ValueError(f"captioner: expected {expected} with `detectors`, found {found}; give both or neither")
        layers = {layer for name in self.networks for layer in self.layers_of(name)}
        for layer in (self.teachers and self.teachers.layers) or ():
            if layer not in layers:
                raise ValueError(f"teachers.layers: expected names from `layers`, found {layer!r}; add it to `layers`")
        for layer in self.layout if isinstance(self.layout, dict) else ():
            if layer not in layers:
                raise ValueError(f"layout: expected names from `layers`, found {layer!r}; add it to `layers`")
        attacked = (self.attack and self.attack.networks) or ()
        for layer, neurons in self.track.items():
            if layer not in layers:
                raise ValueError(f"track: expected names from `layers`, found {layer!r}; add it to `layers`")
            check_distinct(f"track.{layer}", neurons)
        check_distinct("attack.networks", attacked)
        check_distinct("teachers.layers", (self.teachers and self.teachers.layers) or ())
        named: dict[str, Iterable[str]] = {
            "checkpoints": self.checkpoints,
            "attack.networks": attacked,
        }
        for key, names in named.items():
            for name in names:
                if name not in self.networks:
                    raise ValueError(f"{key}: expected names from `networks`, found {name!r}; add it to `networks`")
        return self

    def layers_of(self, network: str) -> tuple[str, ...]:
        """Return the layers of a network."""
        return self.layers[network] if isinstance(self.layers, dict) else self.layers

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from super().names()
        yield "probe.data", "data", self.probe.data
        yield from (("paradigms", "networks", name) for name in self.paradigms)  # of networks that are not asked, too
        if self.attack is not None:
            yield "attack.data", "data", self.attack.data
        if self.captioner is not None:
            yield "captioner.encoder", "networks", self.captioner.encoder

    def check_private(self, trainings: Mapping[str, tuple[str, str]], shown: str) -> None:
        """Raise ValueError where a probing image may be a training image that the report must not show."""
        used = {split for data, split in trainings.values() if data == self.probe.data}
        if self.shown and used and self.probe.split in {None, *used}:
            raise ValueError(
                f"report.training_images: with {shown!r} expected probing images that no network is trained on, found "
                f"{self.probe.split or 'all samples'} of {self.probe.data!r}; set `concepts.shown: 0`, or "
                "`concepts.probe.split` to another"
            )
