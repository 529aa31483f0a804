"""Which call of which layer puts out the logits, also where a layer is called several times."""

import torch
from torch import Tensor, nn

from tasks.capture import capture_inputs
from tasks.modules.rows import values_of
from tasks.steps.tracing.targets import last_call


class Twice(nn.Module):
    """Its only linear layer is called once, or twice in turn."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.head, self.calls = nn.Linear(3, 3), calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.head(x)
        return x


def test_the_inputs_of_the_last_call_give_the_logits() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for calls, name in ((1, "head"), (2, "head@1"), (3, "head@2")):
        model = Twice(calls).eval()
        called = last_call(model, x[:1])
        assert called == name
        features = values_of(capture_inputs(model, [called], x)[called])
        assert features.shape == (4, 3)
        with torch.inference_mode():
            torch.testing.assert_close(model.head(features), model(x))
    assert last_call(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), x[:1]) is None
