"""The answer of a run to question 2, and what plain loops give for its features, counts and logits."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.io.networks import build_model
from tasks.io.tensors import unpack_tensors
from tasks.steps.common.networks import WEIGHTS
from tasks.steps.decomposition.plan import Decomposed
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


def answer(run: "Run") -> Decomposed:
    """Return the only answer of a run."""
    (found,) = decomposed(run.plan)
    return found


def opened(run: "Run", spec: StageSpec) -> FinishedStage:
    """Return a finished stage."""
    return open_finished(run.job.store, spec)


def model_of(run: "Run") -> nn.Sequential:
    """Return the trained network in float64."""
    training = opened(run, run.plan.shared.trainings["small", 0])
    model = build_model("small-cnn", {"width": 8}, 0)
    model.load_state_dict(unpack_tensors(training.read_file(WEIGHTS)))
    assert isinstance(model, nn.Sequential)
    return model.double().eval()


def plain(run: "Run", spec: StageSpec) -> tuple[Doubles, Doubles, Ids]:
    """Return features, logits and labels of a split, computed sample by sample from the pixels."""
    stage, model = opened(run, spec), model_of(run)
    ids = stage.read("sample_id").astype(np.int64)
    features, logits = [], []
    with torch.inference_mode():
        for image in load_digits().images[ids]:
            x = torch.tensor(np.rint(image * 255 / 16) / 255)[None, None]
            features.append(model[:-1](x)[0].numpy())
            logits.append(model(x)[0].numpy())
    return np.stack(features), np.stack(logits), load_digits().target[ids]


def counted(
    features: NDArray[np.floating], labels: Ids, k1: int | float, limit: int | None = None
) -> tuple[Ids, Doubles]:
    """Return counts and sums of |x| by class from loops."""
    counts, sums, seen = np.zeros((10, features.shape[1]), np.int64), np.zeros((10, features.shape[1])), [0] * 10
    for row, label in zip(features, labels.tolist(), strict=True):
        if limit is None or seen[label] < limit:
            sums[label] += np.abs(row.astype(np.float64))
            for j in top_features(row, k1):
                counts[label, j] += 1
        seen[label] += 1
    return counts, sums


def masked(features: Doubles, head: nn.Linear, sets: Ids) -> Doubles:
    """Return the logits of a head that reads only its sets, from loops."""
    assert head.bias is not None
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    found = np.empty((len(features), len(weight)))
    for row, x in enumerate(features):
        for c in range(len(weight)):
            found[row, c] = bias[c] + sum(weight[c, j] * x[j] for j in sets[c])
    return found


def top_features(row: NDArray[np.floating], k1: int | float) -> list[int]:
    """Return the indices of an image that Algorithm 1 counts, one after the other."""
    order = sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))
    if isinstance(k1, int):
        return order[:k1]
    total, held, found = sum(abs(float(v)) for v in row), 0.0, []
    for j in order:
        if held >= k1 * total * (1 - 1e-12):
            break
        found.append(j)
        held += abs(float(row[j]))
    return found
