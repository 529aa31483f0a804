"""The data sets of a config: a section for every kind of source."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.section import MAX_SEED, Location, Name, Paths, Section, Share

Edgeless = Literal["refuse", "keep"]
EDGELESS: Any = Field(  # Any: pydantic's FieldInfo in the place of a default
    "refuse",
    description="a graph without edges: refuse it, or keep it (the network of Eq. 8 then sees nothing of its nodes)",
)


class LabelNoise(Section):
    """Deliberately wrong labels, to test whether tracing finds them; the manifest keeps the true labels."""

    share: Share = Field(description="share of each split's samples that get a wrong label")
    kind: Literal["flip", "permute"] = Field(
        "flip",
        description="source of the wrong labels: flip draws another class, all equally likely; permute exchanges "
        "labels among the chosen samples",
    )
    splits: tuple[Name, ...] = Field(("train",), min_length=1, description="splits that get wrong labels")
    seed: int = Field(0, ge=0, description="seed of the label-noise draw")


class DataSet(Section):
    """Settings that every kind of data set has."""

    split: dict[Name, Share] | None = Field(
        None,
        description="share of samples by split name, drawn for each class; only for a source that has no splits",
    )
    split_seed: int = Field(0, ge=0, description="seed for drawing the splits")
    per_class: Annotated[int, Field(ge=1)] | dict[Name, Annotated[int, Field(ge=1)]] | None = Field(
        None, description="number of first samples of each class to keep, by sample id: one number, or one per split"
    )
    class_names: tuple[str, ...] | dict[int, str] | None = Field(
        None, description="class names by label, in place of the source's names"
    )
    noise: LabelNoise | None = Field(None, description="deliberately wrong labels, to test whether tracing finds them")

    @model_validator(mode="after")
    def _shares_fit(self) -> "DataSet":
        if self.split == {}:
            raise ValueError("split: expected at least one share, found none; add one, or leave `split` out")
        if self.split is not None and sum(self.split.values()) > 1 + 1e-9:
            raise ValueError(f"split: expected shares with a sum of at most 1, found {sum(self.split.values()):g}")
        return self

    @model_validator(mode="after")
    def _classes_named(self) -> "DataSet":
        names = self.class_names
        for key, name in enumerate(names) if isinstance(names, tuple) else (names or {}).items():
            if not name.strip():
                raise ValueError(f"class_names.{key}: expected a name, found {name!r}; leave it out or name it")
        return self


class SklearnDigits(DataSet):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, levels 0..16 scaled to 0..255."""

    source: Literal["sklearn-digits"]
    split: dict[Name, Share] | None = {"train": 0.8, "val": 0.2}


class Npz(DataSet):
    """NumPy archives of images (N, H, W) or (N, H, W, C) uint8 and labels (N,) or (N, 1) of any integer type."""

    source: Literal["npz"]
    paths: dict[Name, Location | Paths] = Field(
        description="npz file or files by split; under the name `all`, `split` draws the splits"
    )
    images: str = Field(
        "images", description="name of the image array in the archive; `{split}` in it is the name of the split"
    )
    labels: str = Field(
        "labels", description="name of the label array in the archive; `{split}` in it is the name of the split"
    )
    classes: dict[int, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by label in the archive; default: the labels themselves"
    )


class ImageFolder(DataSet):
    """A folder per class below each split's folder, local or at any fsspec URL."""

    source: Literal["image-folder"]
    paths: dict[Name, Location] = Field(description="folder by split; under the name `all`, `split` draws the splits")
    classes: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by class folder; default: 0, 1, ... in sorted order"
    )


class Csv(DataSet):
    """A table of image paths and labels per split."""

    source: Literal["csv"]
    paths: dict[Name, Location] = Field(description="csv file by split; under the name `all`, `split` draws the splits")
    root: Location = Field(
        "", description="folder or URL that the paths in the table are relative to; default: the table's own folder"
    )
    path_column: str = Field("path", description="column with the image paths")
    label_column: str = Field("label", description="column with the labels")
    classes: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by label; default: the labels themselves, if they are integers"
    )


class HuggingFace(DataSet):
    """A local folder of Hugging Face's `datasets`: from `save_to_disk`, of Parquet files, or an image folder.

    It needs the extra `hf`. Nothing is downloaded, and no code of a data set runs.
    """

    source: Literal["hugging-face"]
    path: Location = Field(min_length=1, description="local folder of the data set")
    splits: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        None, description="splits that are read; default: all"
    )
    image_column: str | None = Field(
        None, min_length=1, description="column with images, or with arrays of uint8; default: the only one of images"
    )
    label_column: str | None = Field(
        None,
        min_length=1,
        description="column with class labels, integers or names; default: the only one of class labels, else `label`",
    )
    classes: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by class name; default: the labels themselves, names in sorted order"
    )


class ImageNet(DataSet):
    """torchvision's ImageNet layout: ROOT/train/WNID/*.JPEG, ROOT/val/WNID/*.JPEG, optionally ROOT/meta.bin."""

    source: Literal["imagenet"]
    root: Location = Field(description="folder that holds train/ and val/")


class Broden(DataSet):
    """A probing set with label maps in Broden's folder format: index.csv, category.csv, label.csv, c_*.csv, images/."""

    source: Literal["broden"]
    root: Location = Field(description="folder or URL that holds index.csv and images/")


class MiniBroden(DataSet):
    """A probing set with label maps that the project draws: scenes with objects and parts, textures and materials."""

    source: Literal["mini-broden"]
    count: int = Field(2000, ge=1, le=10**6, description="number of images")
    size: int = Field(64, ge=32, le=256, description="height and width of the images in pixels")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the drawing; (seed, index) determines an image")


class ImportedData(DataSet):
    """The user's own data: an import path to a function that returns a `tasks.io.sources.Source`."""

    source: Literal["import"]
    object: str = Field(pattern=r"^[\w.]+:[\w.]+$", description="import path module:function of the data set")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the function")  # Any: the user's own


class GraphFile(DataSet):
    """NumPy archives of graphs: node_ptr, edge_src, edge_dst, node_label, graph_label; edge_label is optional.

    Graph g has the nodes node_ptr[g] to node_ptr[g + 1]; an arc names its two nodes by their index in the file.
    """

    source: Literal["graph-npz"]
    paths: dict[Name, Location] = Field(
        min_length=1, description="npz file by split; under the name `all`, `split` draws the splits"
    )
    node_labels: Annotated[int, Field(ge=1, le=10**6)] | tuple[str, ...] | None = Field(
        None, description="number of different node labels, or the name of each; default: the largest label plus 1"
    )
    classes: dict[int, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by label of a graph; default: the labels themselves"
    )
    edgeless: Edgeless = EDGELESS

    @model_validator(mode="after")
    def _check_node_labels(self) -> "GraphFile":
        names = self.node_labels
        if isinstance(names, tuple):
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            found = f"{twice[0]!r} twice" if twice else "an empty name" if not all(map(str.strip, names)) else ""
            if found or not names:
                raise ValueError(f"node_labels: expected a name of its own for each label, found {found or 'no names'}")
        return self


class TorchGeometric(DataSet):
    """An in-memory data set of torch_geometric, by import path; it needs the extra `graph`."""

    source: Literal["torch-geometric"]
    object: str = Field(
        pattern=r"^[\w.]+:[\w.]+$",
        description="import path module:name of the data set's class, or of a function that returns the data set, such "
        "as torch_geometric.datasets:TUDataset",
    )
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the class or function")  # Any: its own
    edgeless: Edgeless = EDGELESS


class SequenceFile(DataSet):
    """NumPy archives of sequences: values, offsets (n + 1,) and labels (n,).

    Sequence i is values[offsets[i]:offsets[i + 1]]. Values are tokens (steps,) from 1, as 0 is padding, or features
    (steps, d).
    """

    source: Literal["sequence-npz"]
    paths: dict[Name, Location] = Field(
        min_length=1, description="npz file by split; under the name `all`, `split` draws the splits"
    )
    vocabulary: Annotated[int, Field(ge=2, le=2**24)] | None = Field(
        None, description="number of tokens with padding, above the largest token; default: not checked"
    )


class Texts(DataSet):
    """Tables of texts and labels in UTF-8, whose texts a local tokenizer turns into tokens; 0 is padding."""

    source: Literal["texts"]
    paths: dict[Name, Location] = Field(
        min_length=1, description="csv file by split; under the name `all`, `split` draws the splits"
    )
    tokenizer: Location = Field(
        description="local file: .json of the package tokenizers, else a text file with a word a line, [UNK] for others"
    )
    text_column: str = Field("text", description="column with the texts")
    label_column: str = Field("label", description="column with the labels")
    classes: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="network output index by label; default: the labels themselves, if they are integers"
    )
    longest: Annotated[int, Field(ge=1)] | None = Field(
        None, description="number of tokens of a text that are kept, from its beginning; default: all"
    )


AnyDataSet = Annotated[
    SklearnDigits
    | Npz
    | ImageFolder
    | Csv
    | HuggingFace
    | ImageNet
    | Broden
    | MiniBroden
    | GraphFile
    | TorchGeometric
    | SequenceFile
    | Texts
    | ImportedData,
    Field(discriminator="source"),
]
