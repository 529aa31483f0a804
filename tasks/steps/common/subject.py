"""One image as a network of a run sees it: the subject of a card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.load import ConfigError
from configs.schema import Config, Preprocessing
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store, StoreError
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network, preprocessing_of
from tasks.steps.common.pictures import shown_images
from tasks.steps.common.samples import read_first, read_positions

if TYPE_CHECKING:
    from torch import Tensor

    from storage.updates.archives import Segment

Watch = Callable[[Sequence["Segment"], str], Iterable["Segment"]]  # a title for a progress bar


@dataclass(frozen=True)
class Sample:
    """Where an image comes from: a data set of the run.

    Attributes
    ----------
    manifest : the data set
    split, key : of the sample
    id : number of the sample in the data set
    label : its given class, as an output of the network; None where the data set has other classes
    """

    manifest: StageSpec
    split: str
    id: int
    key: str
    label: int | None

    @property
    def data(self) -> str:
        """Name of the data set in the config."""
        return str(self.manifest.place["name"])


@dataclass(frozen=True)
class Subject:
    """An image as a network takes it, and the network's answer.

    Attributes
    ----------
    network : stage whose network sees the image
    inputs : (1, C, h, w) float32, on the CPU
    logits : (C,) float32
    image : (H, W, 3) uint8, the inputs as a small picture
    sample : where it comes from; None for an image file
    said : what an image file is, for people
    """

    network: StageSpec
    inputs: Tensor
    logits: NDArray[np.float32]
    image: NDArray[np.uint8]
    sample: Sample | None
    said: str = ""

    @property
    def predicted(self) -> int:
        """The class with the largest logit."""
        return int(self.logits.argmax())

    @property
    def chances(self) -> NDArray[np.float64]:
        """The probability of each class, (C,)."""
        powers = np.exp(self.logits.astype(np.float64) - float(self.logits.max()))
        found: NDArray[np.float64] = powers / powers.sum()
        return found

    def is_of(self, manifest: StageSpec) -> int | None:
        """Return the id of the image in a data set, None where it comes from elsewhere."""
        return self.sample.id if self.sample is not None and self.sample.manifest.path == manifest.path else None


@dataclass(frozen=True)
class Look:
    """What a card is asked of.

    Attributes
    ----------
    config : of the run
    watch : yields the segments of an archive while they are read, with a title for a progress bar
    """

    store: Store
    config: Config
    subject: Subject
    watch: Watch

    @property
    def training_images(self) -> str:
        """The config's `report.training_images`."""
        return self.config.report.training_images


def find_sample(store: Store, manifest: StageSpec, asked: str) -> Sample:
    """Return the sample with an id or a key.

    Raises
    ------
    ConfigError : the data set does not have it
    """
    rows = positions(store, manifest.path, None)
    found = rows[rows["id"] == int(asked)] if asked.isdecimal() else rows[rows["key"] == asked]
    if asked.isdecimal() and found.empty:
        found = rows[rows["key"] == asked]  # a file name may be a number
    if found.empty:
        raise ConfigError(
            f"--sample: expected an id or key of data.{manifest.place['name']}, found {asked!r}; ids are "
            f"{rows['id'].min()} to {rows['id'].max()}, keys are such as {rows['key'].iloc[0]!r}"
        )
    row = found.iloc[0]
    return Sample(manifest, str(row["split"]), int(row["id"]), str(row["key"]), int(row["label_given"]))


def sample_subject(store: Store, network: StageSpec, sample: Sample) -> Subject:
    """Return a sample of the run as a network takes it.

    Parameters
    ----------
    network : a stage whose parameters have the network

    Raises
    ------
    ConfigError : an image that the network does not take, or that has changed since the run
    """
    spec = replace(network, inputs={**network.inputs, "data": sample.manifest})
    rows = positions(store, sample.manifest.path, sample.split)
    place = np.flatnonzero(rows["id"] == sample.id).astype(np.int64)
    try:
        inputs = read_positions(store, spec, sample.split, place).contiguous()
    except ValueError as error:  # an image of another mode, or one that has changed
        raise ConfigError(f"--sample: {error}") from None
    return _subject(store, network, inputs, sample)


def file_subject(store: Store, network: StageSpec, manifest: StageSpec, path: str) -> Subject:
    """Return an image file as a network takes it.

    Parameters
    ----------
    manifest : a data set of the network, which gives the size of its inputs

    Raises
    ------
    ConfigError : no file, not an image, one that cannot be converted, or a network that does not take images
    """
    settings = preprocessing_of(network.parameters["network"])
    shape = tuple(read_first(store, manifest, settings).shape[1:])
    if len(shape) != 3:
        raise ConfigError("--image: expected a network of images, found one of graphs or sequences; use --sample")
    inputs, said = read_query(path, settings, shape)
    name = path.rstrip("/").rpartition("/")[2]  # a page that others read does not name the user's folders
    return replace(_subject(store, network, inputs.contiguous(), None), said=said.replace(path, name))


def _subject(store: Store, network: StageSpec, inputs: Tensor, sample: Sample | None) -> Subject:
    """Run the network over an input."""
    settings = preprocessing_of(network.parameters["network"])
    (image,), (logits,) = shown_images(inputs, settings), answers_to(store, network, inputs)
    return Subject(network, inputs, logits, image, sample)


def answers_to(store: Store, network: StageSpec, inputs: Tensor) -> NDArray[np.float32]:
    """Return the logits (n, C) of a stage's network for inputs (n, C, h, w)."""
    import torch

    device = choose_device("auto")
    model = load_network(store, network, device)  # outside, since weights made in inference mode let no gradient pass
    with torch.inference_mode():
        found = model(inputs.to(device).clone())
    logits: NDArray[np.float32] = found.float().cpu().numpy()
    return logits


def class_names_of(store: Store, manifest: StageSpec) -> dict[str, str]:
    """Return the names of a data set's classes, by label as text."""
    names: dict[str, str] = open_finished(store, manifest).summary["class_names"]
    return names


def class_title(names: dict[str, str], label: int) -> str:
    """Return the name of a label, or the label without a name."""
    return names.get(str(label), str(label))


def _content(path: str) -> bytes:
    """Return a file whole; one on S3 by the connection of stores, whose errors are one line."""
    from tasks.io.files import look_up, read_bytes

    if path.startswith("s3://"):
        from storage.s3 import files  # here: the import takes a second

        found: bytes = files(asynchronous=False).cat_file(path.removeprefix("s3://"))
        return found
    look_up(path)  # a pipe or a device would never end
    return read_bytes(path)


def read_query(path: str, settings: Preprocessing, shape: Sequence[int]) -> tuple[Tensor, str]:
    """Return an image file as a network's input (1, C, h, w), and a description.

    Parameters
    ----------
    settings : the network's preprocessing; images of other modes are converted whatever it says
    shape : (C, h, w) of the network's other inputs; where preprocessing states no size, the image is resized to it

    Raises
    ------
    ConfigError : no file, not an image, or an image that cannot be converted
    """
    from tasks.io.decoding import decode
    from tasks.io.files import reason
    from tasks.io.images import preprocess

    if not path:
        raise ConfigError("--image: expected an image file, found an empty path")
    try:
        image = decode(_content(path), path, path)
        said = f"image {path} ({image.mode}, {image.height} x {image.width} pixels)"
        if settings.resize is None and settings.crop is None:
            settings = settings.model_copy(update={"resize": shape[1:]})
            said += f", resized to {shape[1]} x {shape[2]}" if image.size != shape[:0:-1] else ""
        inputs = preprocess(image, settings.model_copy(update={"convert": True}), path)
    except OSError as error:
        raise ConfigError(f"--image: expected an image file, found {path}, which {reason(error)}") from None
    except StoreError as error:
        raise StoreError(f"--image: {error}") from None
    except (ValueError, ImportError) as error:  # the latter: without the package of a remote file system
        raise ConfigError(f"--image: {str(error).removeprefix(f'sample {path}: ')}") from None
    if tuple(inputs.shape) != tuple(shape):
        raise ConfigError(f"--image: expected an input of shape {shape} as of the training, found {(*inputs.shape,)}")
    return inputs[None], said
