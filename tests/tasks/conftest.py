"""The tiny run's activations as a plain torch loop gives them, without our sources and stores; a job for two stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

from storage.stages import open_finished
from tasks.engine.life import Job
from tasks.io.networks import build_model
from tests.plans import held_out, learned
from tests.tasks.engine.two_stages import job_at

if TYPE_CHECKING:
    from tests.conftest import Run


@dataclass(frozen=True)
class Plain:
    """Rows in the order of the stored ids: labels (n,), maps (n, h, w, d), logits (n, 10), and the model in halves."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    maps: NDArray[np.float32]
    logits: NDArray[np.float32]
    head: nn.Module

    def of_class(self, label: int) -> NDArray[np.int64]:
        """Return the positions of a class."""
        return np.flatnonzero(self.labels == label)

    def predict(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits that the rest of the network gives to maps."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self.head(torch.from_numpy(maps).permute(0, 3, 1, 2)).numpy()
        return found


@pytest.fixture(scope="session")
def plain(finished_run: "Run") -> dict[str, Plain]:
    """Return what a plain loop gives for `train` and `val`."""
    training = next(iter(finished_run.plan.shared.trainings.values()))
    model = build_model("small-cnn", {"width": 4}, 0)
    model.load_state_dict(load_file(Path(finished_run.config.store, training.path, "files/weights.safetensors")))
    model.eval()
    assert isinstance(model, nn.Sequential)
    digits, found = load_digits(), {}
    for split, specs in (("train", learned(finished_run.plan)), ("val", held_out(finished_run.plan))):
        ids = np.asarray(open_finished(finished_run.job.store, specs["small", 0]).read("sample_id"), np.int64)
        images = torch.tensor(np.rint(digits.images[ids] * 255 / 16) / 255, dtype=torch.float32)[:, None]
        with torch.inference_mode():
            maps = torch.cat([model[:9](image[None]) for image in images])
            logits = model[9:](maps)
        channels_last = maps.permute(0, 2, 3, 1).contiguous().numpy()
        found[split] = Plain(ids, digits.target[ids], channels_last, logits.numpy(), model[9:])
    return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job in this process, on an empty store, with an observer that keeps what it gets."""
    return job_at(tmp_path / "store")
