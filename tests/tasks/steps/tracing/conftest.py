"""Trainings made again in a plain loop that keeps every weight, and small runs that ask question 4 of them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from storage.specs import StageSpec
from tasks.io.networks import build_model
from tasks.steps.common.trainer import open_trainer
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Projected:
    """Explicit products of a layer: gamma, norm, decay (T, Q); init, z_norm (Q,)."""

    gamma: Doubles
    norm: Doubles
    decay: Doubles
    init: Doubles
    z_norm: Doubles

    @property
    def cosine(self) -> Doubles:
        """Gamma over both norms, 0 where one is 0."""
        scale = self.norm * self.z_norm
        return np.where(scale > 0, self.gamma / np.where(scale > 0, scale, 1), 0)


@dataclass(frozen=True)
class Heard:
    """What a step was; `loss` is before it."""

    members: Ids
    ghosts: Ids
    label: int
    epoch: int
    loss: float
    lr: float


@dataclass(frozen=True)
class Plain:
    """A training in a plain loop: by parameter, `weights` (T + 1, ...) float64 and `decays` (T, ...) of decay alone."""

    rows: pd.DataFrame  # of the training split, class-major
    model: nn.Module
    weights: dict[str, Tensor]
    decays: dict[str, Tensor]
    steps: list[Heard]

    @property
    def layers(self) -> list[str]:
        """Modules with a recorded weight."""
        return [name.removesuffix(".weight") for name in self.weights if name.endswith(".weight")]

    @property
    def ids(self) -> Ids:
        """The training examples."""
        return self.rows["id"].to_numpy(np.int64)

    def project(self, layer: str, ids: Ids, *, bias: bool = False, displacement: bool = False) -> Projected:
        """Project every update of a layer on samples, one step and one sample at a time."""
        weights, decays = self.weights[f"{layer}.weight"], self.decays[f"{layer}.weight"]
        biases = self.weights[f"{layer}.bias"] if bias else None
        inputs = self.inputs(layer, ids)
        steps, n = len(weights) - 1, len(ids)
        gamma, norm, decay = np.zeros((3, steps, n))
        init, z_norm = np.zeros((2, n))
        for q in range(n):
            f = inputs[q : q + 1]
            anchor_weights = weights[-1] - weights[0] if displacement else weights[-1]
            shift = None if biases is None else biases[-1] - biases[0] if displacement else biases[-1]
            z = self.apply(layer, f, anchor_weights, shift)
            z_norm[q] = z.norm().item()
            init[q] = (z * self.apply(layer, f, weights[0], None if biases is None else biases[0])).sum().item()
            for t in range(steps):
                step = None if biases is None else biases[t + 1] - biases[t]
                change = self.apply(layer, f, weights[t + 1] - weights[t], step)
                gamma[t, q], norm[t, q] = (z * change).sum().item(), change.norm().item()
                pulled = None if biases is None else self.decays[f"{layer}.bias"][t]
                decay[t, q] = (z * self.apply(layer, f, decays[t], pulled)).sum().item()
        return Projected(gamma, norm, decay, init, z_norm)

    def logit(self, layer: str, ids: Ids, classes: Ids) -> tuple[Doubles, Doubles, Doubles]:
        """Return what each step, and decay in it, adds to a logit (T, Q), and what it starts from (Q,)."""
        weights, biases = self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]
        decays = self.decays[f"{layer}.weight"], self.decays[f"{layer}.bias"]
        inputs = self.inputs(layer, ids)
        found, decay = np.zeros((2, len(weights) - 1, len(ids)))
        init = np.zeros(len(ids))
        for q, c in enumerate(classes.tolist()):
            values = [float(w[c] @ inputs[q] + b[c]) for w, b in zip(weights, biases, strict=True)]
            init[q], found[:, q] = values[0], np.diff(values)
            decay[:, q] = [float(w[c] @ inputs[q] + b[c]) for w, b in zip(*decays, strict=True)]
        return found, decay, init

    def inputs(self, layer: str, ids: Ids) -> Tensor:
        """Return what a layer of the final network takes for samples, float64."""
        kept: list[Tensor] = []
        model = copy.deepcopy(self.model).double().eval()
        handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, given: kept.append(given[0].clone()))
        with torch.inference_mode():
            model(images(ids).double())
        handle.remove()
        return kept[0]

    def logits(self, ids: Ids) -> Doubles:
        """Return the final network's logits."""
        with torch.inference_mode():
            found: Doubles = copy.deepcopy(self.model).double().eval()(images(ids).double()).numpy()
        return found

    def apply(self, layer: str, f: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what a layer gives with other weights."""
        module = self.model.get_submodule(layer)
        if isinstance(module, nn.Conv2d):
            assert isinstance(module.padding, tuple)
            return F.conv2d(f, weight, bias, module.stride, module.padding, module.dilation, module.groups)
        return F.linear(f, weight, bias)

    def own(self, layer: str) -> dict[int, float]:
        """Return what each example's own steps, less decay, contributed to itself, split equally over their members."""
        weights, sums = self.weights[f"{layer}.weight"], dict.fromkeys(self.ids.tolist(), 0.0)
        moves = weights.diff(dim=0) - self.decays[f"{layer}.weight"]
        for example, f in zip(self.ids.tolist(), self.inputs(layer, self.ids), strict=True):
            z = self.apply(layer, f[None], weights[-1], None)
            for t, step in enumerate(self.steps):
                if example in step.members:
                    change = self.apply(layer, f[None], moves[t], None)
                    sums[example] += float((z * change).sum()) / len(step.members)
        return sums

    def summed(self, values: Doubles, counted: list[bool] | None = None) -> dict[int, Doubles]:
        """Return values (T, Q) summed over each example's steps, every step split equally over its members."""
        sums: dict[int, Doubles] = {}
        for t, step in enumerate(self.steps):
            if counted is None or counted[t]:
                for example in step.members.tolist():
                    sums[example] = sums.get(example, np.zeros(values.shape[1])) + values[t] / len(step.members)
        return sums


def images(ids: Ids) -> Tensor:
    """Return digits as the network takes them: levels 0..16 on a scale of 255, in 0..1."""
    return torch.tensor(np.rint(load_digits().images[ids] * 255 / 16) / 255, dtype=torch.float32)[:, None]


def manifest_rows(run: "Run", spec: StageSpec, split: str) -> pd.DataFrame:
    """Return the rows of a split in class-major order."""
    table = pd.read_parquet(Path(run.config.store, spec.path, "files", "manifest.parquet"))
    return table[table["split"] == split].sort_values(["label_given", "id"], kind="stable").reset_index(drop=True)


def train_plainly(run: "Run", spec: StageSpec, *, seed: int | None = None, subset: Ids | None = None) -> Plain:
    """Train as a stage does, SGD written out, on some positions of the training set if `subset` is given."""
    settings, network = spec.place["train"], spec.parameters["network"]
    seed = int(spec.parameters["seed"]) if seed is None else seed
    rows = manifest_rows(run, spec.inputs["data"], "train")
    rows = rows if subset is None else rows.iloc[subset].reset_index(drop=True)
    batches = open_trainer(run.job.store, spec, torch.device("cpu"), 2**20, seed=seed, subset=subset).samples.batches
    ids, x, y = rows["id"].to_numpy(np.int64), images(rows["id"].to_numpy()), torch.tensor(rows["label_given"].array)
    model = build_model(network["model"], network["arguments"], seed)
    twin = with_ghost_norm(model) if settings["batches"].get("ghosts") else None
    sgd, kept = Sgd(model, settings["optimizer"]), []
    for step in range(batches.per_epoch * settings["epochs"]):
        batch, epoch = batches.batch(step), step // batches.per_epoch
        m, picked = len(batch.examples), torch.from_numpy(np.concatenate([batch.examples, batch.ghosts]))
        model.train().zero_grad()
        if twin is None:
            loss = F.cross_entropy(model(x[picked[:m]]), y[picked[:m]])
        else:
            with ghost_rows(twin.train(), m, len(batch.ghosts)):
                loss = F.cross_entropy(twin(x[picked])[:m], y[picked[:m]])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        lr = settings["optimizer"]["lr"] * _factor(settings["schedule"], epoch)
        sgd.step(lr)
        kept.append(Heard(ids[batch.examples], ids[batch.ghosts], batch.label, epoch, float(loss.detach()), lr))
    linear = [n for n, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    names = [name for name in sgd.kept if name.rpartition(".")[0] in linear]
    weights, decays = ({n: torch.stack(side[n]) for n in names} for side in (sgd.kept, sgd.decays))
    return Plain(rows, model, weights, decays, kept)


def _factor(schedule: Tree, epoch: int) -> float:
    """Return what a constant or step schedule multiplies the learning rate with."""
    return float(schedule["factor"] ** (epoch // schedule["every"])) if schedule["kind"] == "step" else 1.0


class Sgd:
    """SGD with momentum and coupled decay; `kept` has all weights, `decays` what decay alone moved, by its formula."""

    def __init__(self, model: nn.Module, settings: Tree) -> None:
        self.settings, self.named = {k: v for k, v in settings.items() if k != "kind"}, dict(model.named_parameters())
        self.optimizer = torch.optim.SGD(model.parameters(), foreach=False, **self.settings)
        self.pull = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.named.items()}
        self.kept = {name: [p.detach().double()] for name, p in self.named.items()}
        self.decays: dict[str, list[Tensor]] = {name: [] for name in self.named}

    def step(self, lr: float) -> None:
        """Make a step from the gradients."""
        mu, wd, ahead = (self.settings[key] for key in ("momentum", "weight_decay", "nesterov"))
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        for name, p in self.named.items():
            pull: Tensor = wd * self.kept[name][-1] * p.requires_grad
            self.pull[name] = mu * self.pull[name] + pull
            self.decays[name].append(-lr * (pull + mu * self.pull[name] if ahead else self.pull[name]))
            self.kept[name].append(p.detach().double())


@pytest.fixture(scope="session")
def plain(traced_run: "Run") -> Plain:
    """The traced run's training in a plain loop."""
    return train_plainly(traced_run, traces(traced_run.plan)[0].training)


@pytest.fixture(scope="session")
def retrain() -> Callable[..., Plain]:
    """Return `train_plainly`: a run, the spec of a training, `seed`, `subset`."""
    return train_plainly


def mlp_tree(store: Path) -> Tree:
    """A config of an MLP with biases that learns from one example at a time: 20 examples, 2 epochs."""
    train = {
        "data": "digits",
        "epochs": 2,
        "optimizer": {"kind": "sgd", "lr": 0.02, "momentum": 0.5, "nesterov": True, "weight_decay": 0.05},
        "batches": {"kind": "single-example"},
        "checkpoint_every": 16,
        "record": {},
    }
    network = {"model": "mlp", "arguments": {"sizes": [64, 7, 10]}, "train": train, "preprocessing": {"mode": "L"}}
    return {
        "name": "mlp",
        "store": str(store),
        "cluster": {"kind": "serial"},
        "data": {"digits": {"source": "sklearn-digits", "per_class": {"train": 2, "val": 1}}},
        "networks": {"net": network},
        "tracing": {"networks": ["net"], "bias": True, "queries": {"count": 3}, "k": 4},
    }


@pytest.fixture
def mlp(tmp_path: Path) -> Tree:
    """The MLP's config, with a store of the test's own."""
    return mlp_tree(tmp_path / "mlp")


@pytest.fixture(scope="session")
def mlp_run(tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A finished run of the MLP with all scores in a window of its steps: not to be changed."""
    tree = mlp_tree(tmp_path_factory.mktemp("mlp") / "store")
    ridges = {"kind": "scott-factor", "bandwidth": 0.3, "classes": 10}
    tree["tracing"] |= {"scores": ["gamma", "cosine", "logit"], "window": [5, 30], "ridges": ridges}
    return new_run(tree).finish()


def frozen(bias_too: bool = True) -> nn.Sequential:
    """An MLP of which the hidden layer is not trained."""
    hidden = nn.Linear(64, 7)
    hidden.weight.requires_grad_(False)
    hidden.bias.requires_grad_(not bias_too)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(7, 10))


GAPS = {"steps": [[0, 4], [7, 10], [12, 13]]}


@pytest.fixture(scope="session")
def gapped_run(tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A finished run of which some steps were not recorded, anchored at the displacement: not to be changed."""
    tree = mlp_tree(tmp_path_factory.mktemp("gapped") / "store")
    tree["networks"]["net"]["train"] |= {
        "batches": {"size": 3},
        "optimizer": {"kind": "sgd", "lr": 0.05},
        "checkpoint_every": 5,
        "record": GAPS,
    }
    tree["tracing"]["anchor"] = "displacement"
    return new_run(tree).finish()
