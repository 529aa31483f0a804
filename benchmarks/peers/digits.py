"""The network that all sides explain: the MLP of the preset influence-digits, trained and recorded by layerlore."""

import copy
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.schema import Config
from flows.plan import make_plan
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import open_store
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Job, complete
from tasks.engine.observers import LineObserver
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import positions
from tasks.steps.common.replays import open_archive
from tasks.steps.questions import STEPS
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.queries import query_inputs

CPU = torch.device("cpu")
PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "influence-digits.yaml"
CLEAN, FLIPPED = "mlp", "flipped"  # networks: as in the preset, and with a tenth of the labels wrong
EXACT = 1e-3  # largest difference of logits between the product's network and the one given to all peers
State = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How the networks are trained, and how much is asked: the preset with half of its examples and queries.

    Attributes
    ----------
    per_class : training examples
    epochs, epochs_flipped : of the network with right labels, and of that with wrong ones
    """

    per_class: int = 30
    epochs: int = 15
    epochs_flipped: int = 5
    queries: int = 100


SMALL = Recipe(per_class=6, epochs=2, epochs_flipped=1, queries=10)  # for the tests


@dataclass(frozen=True)
class Subject:
    """A trained network with its data, as every side takes them.

    Attributes
    ----------
    images, labels : (N, 64) float32 and (N,), the training examples; a label may be wrong
    flipped : (N,) bool, which labels are
    queries, classes : (Q, 64) and (Q,)
    order : (T,) the example of each step
    checkpoints : weights before each epoch and after the last
    lr : learning rate
    """

    images: Tensor
    labels: Tensor
    flipped: NDArray[np.bool_]
    queries: Tensor
    classes: Tensor
    order: NDArray[np.int64]
    checkpoints: list[State]
    lr: float

    @property
    def epochs(self) -> int:
        """Return the number of epochs."""
        return len(self.checkpoints) - 1

    @property
    def examples(self) -> torch.utils.data.TensorDataset:
        """Return the training examples as a data set."""
        return torch.utils.data.TensorDataset(self.images, self.labels)

    @property
    def asked(self) -> torch.utils.data.TensorDataset:
        """Return the queries as a data set."""
        return torch.utils.data.TensorDataset(self.queries, self.classes)

    def model(self, state: State | None = None) -> nn.Sequential:
        """Return a network of its own with the trained weights, or others."""
        built = bare_network()
        built.load_state_dict(self.checkpoints[-1] if state is None else state)
        return built.eval()

    def predicted(self) -> NDArray[np.int64]:
        """Return the class that the network gives each query."""
        with torch.no_grad():
            found: NDArray[np.int64] = self.model()(self.queries).argmax(1).numpy()
        return found


def bare_network() -> nn.Sequential:
    """Return the preset's MLP as plain modules."""
    return nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False))


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Return log p / (1 - p) of each row's class, (n,)."""
    own = nn.functional.one_hot(classes, logits.shape[-1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(-1)


class Traced:
    """The runs of layerlore: plan and store of both networks; a stage can be made again."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.plan = make_plan(Config.model_validate(config_of(folder / "store", recipe)))
        self.job = Job(open_store(str(folder / "store"), create=True), SerialPool(), LineObserver(io.StringIO()))
        self.root = folder / "store"
        traces: list[Trace] = self.plan.answers["tracing"]  # type: ignore[assignment]  # the plan's answers are by question
        self.traces = {trace.network: trace for trace in traces}

    def make(self, spec: StageSpec) -> None:
        """Make a stage with all that it needs."""
        for one in upstream(spec):
            complete(self.job, STEPS[one.stage], [one])

    def again(self, specs: list[StageSpec]) -> None:
        """Make stages again, with what they need in place."""
        for spec in specs:
            shutil.rmtree(self.root / spec.path, ignore_errors=True)
        for spec in specs:
            complete(self.job, STEPS[spec.stage], [spec])

    def subject(self, network: str) -> Subject:
        """Return a trained network as every side takes it."""
        trace, store = self.traces[network], self.job.store
        training = trace.training
        self.make(trace.queries)
        self.make(training)
        rows = positions(store, training.inputs["data"].path, "train")
        images, labels = open_fetch(store, training, "train", CPU, MEMORY_SAMPLES)(np.arange(len(rows)))
        queries = open_finished(store, trace.queries)
        source = open_archive(store, training)
        ids = rows["id"].to_numpy(np.int64)
        found = Subject(
            images.flatten(1),
            labels,
            (rows["label_given"] != rows["label_true"]).to_numpy(bool),
            query_inputs(store, trace.queries, CPU).flatten(1),
            torch.from_numpy(queries.read("label").astype(np.int64)),
            np.argsort(ids)[np.searchsorted(np.sort(ids), np.concatenate(source.examples))],
            list(states(source)),
            float(source.ledger["lr"].iloc[0]),
        )
        check_same(found, queries.read("logits"))
        return found


def states(source: Any) -> Iterator[State]:  # Any: an update source of any kind
    """Yield the weights before each segment of an archive and after the last, by the bare network's names."""
    names = dict(zip(source.layers, ("0.weight", "2.weight"), strict=True))
    for segment in source.segments():
        yield {name: next(iter(source.blocks(segment, [layer]))).weights[0].clone() for layer, name in names.items()}
    yield {name: source.final(layer).clone() for layer, name in names.items()}


def check_same(subject: Subject, logits: NDArray[Any]) -> None:  # Any: floats
    """Raise ValueError unless the network given to the peers answers as the one that layerlore trained."""
    with torch.no_grad():
        difference = float((subject.model()(subject.queries) - torch.from_numpy(logits)).abs().max())
    if not difference < EXACT:
        raise ValueError(f"network: expected the same logits for all sides, found a difference of {difference:.2g}")


def upstream(spec: StageSpec) -> list[StageSpec]:
    """Return a stage after all that it needs, each once."""
    found: dict[str, StageSpec] = {}

    def visit(one: StageSpec) -> None:
        for before in one.inputs.values():
            visit(before)
        found.setdefault(one.path, one)

    visit(spec)
    return list(found.values())


def config_of(store: Path, recipe: Recipe) -> dict[str, Any]:  # Any: YAML
    """Return the preset's config with a second network of which a tenth of the labels are wrong."""
    config: dict[str, Any] = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    config |= {"store": str(store), "cluster": {"kind": "serial"}}
    digits = {"source": "sklearn-digits", "per_class": {"train": recipe.per_class, "val": recipe.queries // 10}}
    config["data"] = {"digits": digits, FLIPPED: {**digits, "noise": {"share": 0.1}}}
    train = config["networks"][CLEAN]["train"]
    train |= {"epochs": recipe.epochs, "checkpoint_every": 10 * recipe.per_class}
    config["networks"][FLIPPED] = copy.deepcopy(config["networks"][CLEAN])
    config["networks"][FLIPPED]["train"] |= {"data": FLIPPED, "epochs": recipe.epochs_flipped}
    tracing = config["tracing"]
    tracing["networks"] = [CLEAN, FLIPPED]
    tracing["queries"]["count"] = recipe.queries
    tracing["evaluation"] = {"mislabel": True, "lds": {"subsets": 2, "share": 0.5}}
    return config
