"""Small probing sets and networks with given weights, and the responses of their layers, made without a plan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.concepts import Concepts
from configs.schema import MiniBroden, Network
from storage.notes import marker_name
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.engine.life import Job, complete
from tasks.engine.step import Step
from tasks.io.mini_broden import MiniBrodenSource
from tasks.steps.common.manifest import MANIFEST, manifest_spec, positions
from tasks.steps.concepts.responses import RESPONSES, read_pooled, responses_specs
from tasks.steps.concepts.watched import UNKNOWN_STEP, Watched
from tests.tasks.engine.two_stages import job_at

COUNT, SIZE = 70, 32  # three partitions of responses of 32 images
LAYERS = ("conv", "tokens", "fc")
DEAD = 2  # channel of `conv` that is the same on all images
Floats = NDArray[np.float64]


class Shapes(nn.Module):
    """A network of images (n, 3, 32, 32) with a layer of each kind: maps 8 x 8, tokens with a class token, vectors.

    `last` gives maps in channels-last order, `odd` tokens without a class token, `deep` an output of five dimensions.
    """

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 4, stride=4)
        self.last = nn.LayerNorm(width)
        self.deep = nn.Identity()
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.tokens = nn.LayerNorm(width)
        self.odd = nn.Identity()
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        maps = self.conv(x)
        rows = self.last(maps.permute(0, 2, 3, 1)).flatten(1, 2)
        maps = self.deep(maps[:, :, None])
        tokens = self.tokens(torch.cat([self.token.expand(len(x), -1, -1), rows], dim=1))
        odd = self.odd(tokens[:, :7])
        logits: Tensor = self.fc((tokens + odd.mean(1, keepdim=True)).mean(1))
        return logits


@dataclass(frozen=True)
class Probing:
    """A finished manifest of drawn images, and the finished responses of each layer."""

    job: Job
    manifest: StageSpec
    responses: dict[str, StageSpec]
    asked: Concepts
    watched: Watched

    def make(self, step: Step, spec: StageSpec) -> FinishedStage:
        """Make a stage."""
        (found,) = complete(self.job, step, [spec])
        return found

    def pooled(self, layer: str) -> NDArray[np.float32]:
        """Return the activations (N, K) of a layer as stored."""
        return read_pooled(open_finished(self.job.store, self.responses[layer]), layer)

    def keys(self) -> list[str]:
        """Return the keys of the images, by position."""
        found: list[str] = positions(self.job.store, self.manifest.path, self.asked.probe.split)["key"].tolist()
        return found

    def masks(self) -> NDArray[np.int32]:
        """Return the label maps of all images, by position."""
        return MiniBrodenSource(COUNT, SIZE, 0).masks(self.keys())

    def maps(self, layer: str) -> Floats:
        """Return the maps (N, K, h, w) of a layer from a plain loop over the images."""
        model = Shapes()
        model.load_state_dict(torch.load(str(self.watched.settings.weights), weights_only=True))
        kept: list[Tensor] = []
        model.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output.detach()))
        for sample in MiniBrodenSource(COUNT, SIZE, 0).read(self.keys()):
            image = torch.from_numpy(np.asarray(sample.image)).permute(2, 0, 1).float() / 255
            model(image[None])
        values = torch.cat(kept)
        if layer == "tokens":
            values = values[:, 1:].transpose(1, 2).reshape(len(values), -1, 8, 8)
        return values.reshape(*values.shape[:2], *(values.shape[2:] or (1, 1))).double().numpy()


def probing(place: Path, *, kept: bool = True, layers: tuple[str, ...] = LAYERS, **more: Any) -> Probing:
    """Make a manifest and the responses of a network with given weights; `kept` says whether it keeps maps.

    `more` are settings of the section `concepts`.
    """
    torch.manual_seed(3)
    state = Shapes().state_dict()
    state["conv.weight"][DEAD] = 0.0
    torch.save(state, place / "weights.pt")
    network = Network.model_validate(
        {
            "model": "tests.tasks.steps.concepts.probing:Shapes",
            "weights": str(place / "weights.pt"),
            "preprocessing": {"mode": "RGB"},
        }
    )
    asked = Concepts.model_validate({"networks": ["small"], "layers": layers, "probe": {"data": "probe"}, **more})
    job = job_at(place / "store")
    manifest = manifest_spec("probe", MiniBroden(source="mini-broden", count=COUNT, size=SIZE))
    complete(job, MANIFEST, [manifest])
    watched = Watched("small", "given weights", UNKNOWN_STEP, network)
    responses = responses_specs(watched, manifest, asked, kept_maps=kept)
    complete(job, RESPONSES, list(responses.values()))
    return Probing(job, manifest, responses, asked, watched)


def content(job: Job, spec: StageSpec) -> dict[str, Any]:
    """Return the digests of a stage's arrays and files."""
    note = open_finished(job.store, spec).note
    return {"arrays": note["arrays"], "files": note["files"]}


def lose(place: Path, spec: StageSpec, partition: int) -> None:
    """Make a finished stage one that was killed before it finished a partition."""
    (place / "store" / spec.path / "markers" / "complete.json").unlink()
    lose_partition(place, spec, partition)


def lose_partition(place: Path, spec: StageSpec, partition: int) -> None:
    """Make an unfinished stage one without a partition."""
    (place / "store" / spec.path / "markers" / marker_name(partition)).unlink()
