"""Ten epochs of a real training as a folder of checkpoints; needs `--data`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.mnist_resnet import mnist_resnet
from storage.stages import open_finished
from tasks.io.mini_broden import MiniBrodenSource
from tasks.steps.concepts.responses import read_pooled
from tasks.steps.concepts.results import concept_results
from tests.probed import COUNT, SIZE

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
LAYER, EPOCHS = "act", 10
SNAPSHOTS = "snapshots/mnist_resnet_gn_10epochs_fp16.pt"


@pytest.mark.slow
def test_ten_epochs_are_ten_snapshots_in_order(
    data_dir: Path, probed_tree: Tree, tmp_path: Path, new_run: Callable[[Tree], "Run"]
) -> None:
    states: dict[str, dict[str, Tensor]] = torch.load(data_dir / SNAPSHOTS, weights_only=True)
    folder = tmp_path / "epochs"
    folder.mkdir()
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pt")
    torch.save({"other": torch.zeros(2)}, folder / "epoch_10.pt")  # of another architecture
    probed_tree["networks"]["small"] = {
        "model": "benchmarks.mnist_resnet:mnist_resnet",
        "weights": str(folder / "epoch_9.pt"),
        "preprocessing": {"mode": "L", "resize": 32, "mean": [0.5], "std": [0.5]},
    }
    del probed_tree["data"]["digits"]
    probed_tree["concepts"] |= {"checkpoints": {"small": {"folder": str(folder)}}, "layers": [LAYER], "track": {}}
    probed_tree["concepts"]["detectors"] = {"soft_wpmi": {"top_k": 10}}
    run = new_run(probed_tree).finish()
    (answer,) = run.plan.answers["concepts"]
    assert [each.label for each in answer.snapshots] == [f"epoch_{number}" for number in range(EPOCHS)]
    assert [line.partition(":")[2].split()[0] for line in answer.left_out] == ["epoch_10.pt"]
    monitor = concept_results(run.job.store, [answer], "show").monitor
    assert monitor["step"].tolist() == list(range(EPOCHS))
    assert (monitor["neurons"] == 128).all()
    assert monitor["d_anchor"].between(0, 2).all()
    for number in (0, 9):
        finished = open_finished(run.job.store, answer.responses[number][LAYER])
        expected = plain(states[f"epoch_{number}"], finished.read("sample_id").tolist())
        np.testing.assert_allclose(read_pooled(finished, LAYER), expected, rtol=1e-3, atol=1e-4)


def plain(state: dict[str, Tensor], ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the mean of the layer's maps for the drawn images, from a plain loop."""
    model = mnist_resnet().eval()
    model.load_state_dict({name: value.float() for name, value in state.items()})
    kept: list[Tensor] = []
    model.get_submodule(LAYER).register_forward_hook(lambda _, __, output: kept.append(output.detach()))
    source = MiniBrodenSource(COUNT, SIZE, 0)
    keys = [row.key for row in source.rows()]
    for sample in source.read([keys[number] for number in ids]):
        grey = np.asarray(Image.fromarray(np.asarray(sample.image)).convert("L"), np.float32) / 255
        model(torch.from_numpy((grey - 0.5) / 0.5)[None, None])
    return torch.cat(kept).mean(dim=(2, 3)).numpy()
