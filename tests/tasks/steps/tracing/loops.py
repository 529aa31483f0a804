"""The training of a small run in a plain float64 loop, with weights on its examples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from storage.stages import open_finished
from tasks.io.networks import build_model
from tasks.steps.common.trainer import open_trainer
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import images, manifest_rows, mlp_tree

if TYPE_CHECKING:
    from storage.specs import StageSpec
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
Doubles = NDArray[np.float64]
H = 1e-4


def counter_tree(store: Any) -> Tree:  # Any: a path
    """The MLP with momentum, decay and biases: 20 examples, 40 steps in 3 segments, and every score."""
    tree = mlp_tree(store)
    tree["tracing"] |= {
        "scores": ["gamma", "logit", "tracin"],
        "counterfactual": {"precision": "float64", "retrainings": 3, "left_out": 0.2},
        "evaluation": {"lds": {"subsets": 3, "share": 0.5, "retrainings": 1, "order": "both"}},
    }
    return tree


def compared(run: "Run") -> "StageSpec":
    """The spec of the comparison."""
    spec = traces(run.plan)[0].comparison
    assert spec is not None
    return spec


def spearman(first: Doubles, second: Doubles) -> float:
    """Return Spearman's correlation by scipy, 0 for a constant side."""
    return float(spearmanr(first, second).statistic) if np.ptp(first) else 0.0


@dataclass
class Loop:
    """The run's training in a plain float64 loop of torch.optim, with weights on its examples."""

    run: "Run"
    rows: Any = field(init=False)  # Any: a table

    def __post_init__(self) -> None:
        training = traces(self.run.plan)[0].training
        self.rows = manifest_rows(self.run, training.inputs["data"], "train")
        self.settings, self.network = training.place["train"], training.parameters["network"]
        opened = open_trainer(self.run.job.store, training, torch.device("cpu"), 2**20)
        self.batches = [opened.samples.batches.batch(step).examples for step in range(40)]
        self.x = images(self.rows["id"].to_numpy()).double()
        self.y = torch.tensor(self.rows["label_given"].array)
        queries = open_finished(self.run.job.store, traces(self.run.plan)[0].queries)
        self.queries = images(np.asarray(queries.read("sample_id"), np.int64)).double()
        self.classes = torch.tensor(np.asarray(queries.read("label"), np.int64))

    def trained(self, weights: Tensor, look: Callable[[torch.nn.Module, int], None] | None = None) -> torch.nn.Module:
        """Return the trained network; `look` sees it before each step."""
        model = build_model(self.network["model"], self.network["arguments"], 0).double()
        settings = {name: value for name, value in self.settings["optimizer"].items() if name != "kind"}
        optimizer = torch.optim.SGD(model.parameters(), **settings)
        for step, picked in enumerate(self.batches):
            if look is not None:
                look(model, step)
            optimizer.zero_grad()
            losses = F.cross_entropy(model(self.x[picked]), self.y[picked], reduction="none")
            (weights[picked] * losses).sum().div(len(picked)).backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
        return model

    def margins(self, weights: Tensor) -> Doubles:
        """Return the margins of the queries' labels."""
        model = self.trained(weights)
        with torch.no_grad():
            chances = model(self.queries).softmax(1)[range(len(self.classes)), self.classes]
        found: Doubles = torch.log(chances / (1 - chances)).numpy()
        return found
