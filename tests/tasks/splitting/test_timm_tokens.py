"""timm's vision transformers: their poolings, tokens set apart and heads. Skipped where timm is missing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.capture import capture_parts, run_head
from tasks.decomposition.head import find_head
from tasks.steps.common.probing import probe

timm = pytest.importorskip("timm", reason="timm is an extra: pip install 'timm>=1'")
SMALL = {"patch_size": 4, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 5, "init_values": 1.0}


def seeded(name: str = "vit_tiny_patch16_224", **arguments: Any) -> Any:  # Any: timm's own
    """Return a small network in evaluation mode whose head is not zero."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{"img_size": 16, **SMALL, **arguments}).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.3)
    return model


CASES: list[tuple[dict[str, Any], tuple[int, int], int]] = [
    ({}, (16, 16), 1),
    ({"global_pool": "avg"}, (16, 16), 1),
    ({"global_pool": "max"}, (16, 16), 1),
    ({"global_pool": "map"}, (16, 16), 1),
    ({"class_token": False, "global_pool": "avg"}, (16, 16), 0),
    ({"reg_tokens": 4}, (16, 16), 5),
    ({"reg_tokens": 2, "no_embed_class": True, "global_pool": "avg"}, (16, 16), 3),
    ({"img_size": (8, 24)}, (8, 24), 1),
    ({"pre_norm": True, "dynamic_img_size": True}, (16, 16), 1),
]


@pytest.mark.parametrize(("arguments", "size", "apart"), CASES)
def test_patches_and_tokens_apart_of_every_pooling(
    arguments: dict[str, Any], size: tuple[int, int], apart: int
) -> None:
    model, images = seeded(**arguments), torch.randn(3, 3, *size)
    seen: list[Tensor] = []
    hook = model.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = model(images)
    hook.remove()
    split, shapes = probe(model, "blocks.1", images[:1], images=images, tokens="patches")
    assert shapes.maps == (12, size[0] // 4, size[1] // 4)
    assert shapes.apart == apart == model.num_prefix_tokens
    maps, others, found = capture_parts(split, images)
    np.testing.assert_allclose(maps.reshape(3, -1, 12), seen[0][:, apart:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(run_head(split, maps, others), logits, rtol=1e-3, atol=1e-4)
    assert np.abs(run_head(split, maps[:, ::-1, :, ::-1], others) - found).max() > 1e-3  # the patches count
    head = find_head(model, images)
    assert head.name == "head"
    with torch.no_grad():  # question 2 asks the input of that layer
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(head.module(features), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", ["blocks.2", "norm"])
def test_after_the_last_block_only_a_pooling_of_patches_reads_them(layer: str) -> None:
    image = torch.randn(1, 3, 16, 16)
    with pytest.raises(ValueError, match="that read the 16 patches, found that they read only the 1 set apart"):
        probe(seeded(), layer, image, tokens="patches")
    _, shapes = probe(seeded(global_pool="avg"), layer, image, tokens="patches")
    assert shapes.maps == (12, 4, 4)


def test_two_heads_are_split_but_not_decomposed() -> None:
    model, images = seeded("deit_tiny_distilled_patch16_224", img_size=16), torch.randn(2, 3, 16, 16)
    split, shapes = probe(model, "blocks.1", images[:1], images=images, tokens="patches")
    assert (shapes.maps, shapes.apart) == ((12, 4, 4), 2)
    maps, others, _ = capture_parts(split, images)
    with torch.no_grad():
        np.testing.assert_allclose(run_head(split, maps, others), model(images), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"its last one, head_dist, does not give it; .* head \(Linear\), head_dist"):
        find_head(model, images)


def test_tokens_that_are_not_pooled_are_not_logits() -> None:
    with pytest.raises(
        ValueError, match=r"model: expected logits \(n, classes\) for 1 images, found shape \(1, 17, 5\)"
    ):
        probe(seeded(global_pool=""), "blocks.1", torch.randn(1, 3, 16, 16), tokens="patches")
