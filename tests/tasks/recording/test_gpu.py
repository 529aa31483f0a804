"""Recording where the network is on a GPU: weights come through pinned memory, random states are the device's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import Interruption, file_digests


def train(store: Path, steps: int, fail_at: int = -1) -> list[torch.Tensor]:
    """Train with dropout on the GPU and return the weights after each step that was made."""
    torch.manual_seed(0)
    last = nn.Linear(288, 10)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), last).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs, weights = torch.ones(16, 1, 8, 8, device="cuda"), []
    with UpdateRecorder(model, optimizer, store, checkpoint_every=5) as recorder:
        for step in range(recorder.first_step, steps):
            with recorder.step([step]) as row:
                if step == fail_at:
                    raise Interruption
                optimizer.zero_grad()
                row.loss = model(inputs).logsumexp(1).mean()
                row.loss.backward()
                optimizer.step()
            weights.append(last.weight.detach().cpu().clone())
    return weights


@pytest.mark.gpu
def test_a_gpu_training_is_recorded_bitwise_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    expected = train(tmp_path / "whole", 13)
    with pytest.raises(Interruption):
        train(tmp_path / "halting", 13, fail_at=8)
    train(tmp_path / "halting", 13)
    assert file_digests(tmp_path / "halting") == file_digests(tmp_path / "whole")
    source = open_updates(str(tmp_path / "whole"))
    blocks = [block for segment in source.segments() for block in source.blocks(segment, ["4"])]
    changes = torch.cat([block.dense() for block in blocks])
    for step in range(1, 13):
        assert torch.equal(changes[step], expected[step] - expected[step - 1])
    assert torch.equal(source.final("4"), expected[-1])
