"""Which layer is a network's head, over every torchvision classification family."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from tasks.capture import split_at
from tasks.decomposition import DecomposedLinear, find_head, replace_head
from tasks.io.networks import build_model

# The smallest member of each family, the name of its head, the smallest input that it takes.
FAMILIES = [
    ("alexnet", "classifier.6", 64),
    ("convnext_tiny", "classifier.2", 32),
    ("densenet121", "classifier", 32),
    ("efficientnet_b0", "classifier.1", 32),
    ("efficientnet_v2_s", "classifier.1", 32),
    ("googlenet", "fc", 32),
    ("inception_v3", "fc", 75),
    pytest.param("maxvit_t", "classifier.5", 224, marks=pytest.mark.slow),
    ("mnasnet0_5", "classifier.1", 32),
    ("mobilenet_v2", "classifier.1", 32),
    ("mobilenet_v3_small", "classifier.3", 32),
    ("regnet_y_400mf", "fc", 32),
    ("resnet18", "fc", 32),
    ("resnext50_32x4d", "fc", 32),
    ("wide_resnet50_2", "fc", 32),
    ("shufflenet_v2_x0_5", "fc", 32),
    ("swin_t", "head", 32),
    ("swin_v2_t", "head", 64),
    ("vgg11", "classifier.6", 32),
    ("vit_b_16", "heads.head", 32),
]
REFUSED = {"squeezenet": "squeezenet1_1"}


def test_no_family_is_left_out() -> None:
    tested = [str(getattr(family, "values", family)[0]) for family in FAMILIES] + list(REFUSED.values())
    families = {
        torchvision.models.get_model_builder(name).__module__
        for name in torchvision.models.list_models(module=torchvision.models)
    }
    assert families == {torchvision.models.get_model_builder(name).__module__ for name in tested}


@pytest.mark.parametrize(("name", "place", "pixels"), FAMILIES)
def test_every_family_has_its_head_and_features(name: str, place: str, pixels: int) -> None:
    options = {"image_size": pixels} if name == "vit_b_16" else {}
    model = build_model(name, {"num_classes": 13, **options}, seed=0).eval()
    images = torch.rand((2, 3, pixels, pixels), generator=torch.Generator().manual_seed(0))
    head = find_head(model, images)
    assert head.name == place
    split = split_at(model, "penultimate", images)
    assert split.shape == (head.module.in_features,)
    with torch.inference_mode():
        logits, features = model(images), split.trunk(images)
        scale = float(logits.abs().max())
        torch.testing.assert_close(head.module(features), logits, rtol=0, atol=1e-4 * scale)
        indices = np.tile(np.arange(head.module.in_features)[::-1], (13, 1))
        replace_head(model, head.name, DecomposedLinear.from_linear(head.module, indices.copy()))
        torch.testing.assert_close(model(images), logits, rtol=0, atol=1e-4 * scale)


def test_a_convolution_for_a_head_is_refused() -> None:
    model = build_model(REFUSED["squeezenet"], {}, seed=0).eval()
    with pytest.raises(
        ValueError,
        match=r"found that it calls none; the network ends in classifier\.1 \(Conv2d\), classifier\.2 \(ReLU\), "
        r"classifier\.3 \(AdaptiveAvgPool2d\): only logits W x \+ b",
    ):
        find_head(model, torch.rand(1, 3, 32, 32))


class Ends(nn.Module):
    """A linear layer, called as often as asked, and something after it."""

    def __init__(self, calls: int = 1, last: nn.Module | None = None) -> None:
        super().__init__()
        self.later = nn.Linear(4, 4)  # defined first, executed first
        self.last = last
        self.first = nn.Linear(4, 4)
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 4)."""
        x = self.later(x.mean((2, 3)))
        for _ in range(self.calls):
            x = self.first(x)
        return x if self.last is None else self.last(x)


IMAGES = torch.rand(2, 4, 3, 3)


def test_the_last_one_executed_counts_not_the_last_one_defined() -> None:
    class Backwards(Ends):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.later(self.first(x.mean((2, 3))))
            return logits

    assert find_head(Ends().eval(), IMAGES).name == "first"
    assert find_head(Backwards().eval(), IMAGES).name == "later"


def test_what_is_no_head_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"its last one, first, does not give it; .* ends in later \(Linear\), first \(Linear\), last"
    ):
        find_head(Ends(last=nn.Softmax(1)).eval(), IMAGES)
    with pytest.raises(ValueError, match="head 'first': expected one call of the layer, found 3"):
        find_head(Ends(calls=3).eval(), IMAGES)
    with pytest.raises(
        ValueError, match=r"model: expected evaluation mode, found training mode; call model.eval\(\) first"
    ):
        find_head(Ends(), IMAGES)
    with pytest.raises(ValueError, match="it calls none; the network ends in its own forward"):
        find_head(nn.Identity().eval(), IMAGES)


def test_finding_leaves_no_trace_and_replacing_only_the_head() -> None:
    model = Ends().eval()
    before = copy.deepcopy(model.state_dict())
    head = find_head(model, IMAGES)
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in before.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    replace_head(model, head.name, nn.Identity())
    assert isinstance(model.first, nn.Identity)
    assert isinstance(model.later, nn.Linear)
    for name in ("nothing", "later.weight", ""):
        with pytest.raises(
            ValueError, match=f"head {name!r}: expected the name of a module of the network, found none"
        ):
            replace_head(model, name, nn.Identity())
