"""Tokens of networks whose patches are known: grids of any shape and order, tokens set apart, and none at all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from tasks.capture import capture_parts, run_head, split_at
from tasks.io.sequence_models import TransformerClassifier
from tasks.splitting.token_grid import TokenGrid, find_grid
from tasks.steps.common.probing import probe, read_as_patches
from tests.tasks.layout_networks import Planted, tiny_vit


class Tokens(nn.Module):
    """Patches of 4 x 4 pixels as tokens in a given order, with `first` and `last` learned tokens around them."""

    def __init__(self, order: list[int], first: int = 0, last: int = 0, overlap: bool = False) -> None:
        super().__init__()
        kernel = {"kernel_size": 7, "stride": 4, "padding": 3} if overlap else {"kernel_size": 4, "stride": 4}
        self.conv = nn.Conv2d(3, 8, **kernel)  # type: ignore[arg-type]  # a dict of integers
        self.order = order
        self.first, self.last = (nn.Parameter(torch.randn(1, n, 8)) for n in (first, last))
        self.norm, self.mix = nn.LayerNorm(8), nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        patches = self.conv(x).flatten(2).transpose(1, 2)[:, self.order]
        tokens = torch.cat([self.first.expand(len(x), -1, -1), patches, self.last.expand(len(x), -1, -1)], dim=1)
        found: Tensor = self.out(self.norm(self.mix(tokens)).mean(1))
        return found


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network with fixed random weights, in evaluation mode, whose head is not zero."""
    torch.manual_seed(0)
    model = build().eval()
    for value in model.parameters():
        if value.ndim > 1 and not bool(value.any()):
            nn.init.normal_(value)
    return model


@pytest.mark.parametrize(
    ("build", "size", "n_tokens", "expected"),
    [
        (tiny_vit, (16, 16), 17, TokenGrid(4, 4, tuple(range(1, 17)), (0,))),
        (lambda: Tokens(list(range(8))), (8, 16), 8, TokenGrid(2, 4, tuple(range(8)))),
        (lambda: Tokens(list(range(8)), 3), (16, 8), 11, TokenGrid(4, 2, tuple(range(3, 11)), (0, 1, 2))),
        (lambda: Tokens(list(range(4)), 1, 1), (8, 8), 6, TokenGrid(2, 2, (1, 2, 3, 4), (0, 5))),
        (lambda: Tokens([3, 1, 0, 2]), (8, 8), 4, TokenGrid(2, 2, (2, 1, 3, 0))),  # token 0 is the last patch
        (lambda: Tokens(list(range(16)), 1, 0, True), (16, 16), 17, TokenGrid(4, 4, tuple(range(1, 17)), (0,))),
        (lambda: TransformerClassifier(12, length=16, patch=2), (8, 8), 16, TokenGrid(4, 4, tuple(range(16)))),
        (lambda: TransformerClassifier(24, length=8), (8, 8), 8, TokenGrid(8, 1, tuple(range(8)))),  # rows of pixels
        (lambda: TransformerClassifier(48, length=16), (16, 16), 16, TokenGrid(16, 1, tuple(range(16)))),  # not 4 x 4
        (lambda: Tokens(list(range(4))), (8, 8), 5, None),  # no module sees 5 tokens
    ],
)
def test_the_patch_of_each_token_is_found(
    build: Callable[[], nn.Module], size: tuple[int, int], n_tokens: int, expected: TokenGrid | None
) -> None:
    for seed in range(3):
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
        assert find_grid(seeded(build), image, n_tokens) == expected


def test_tokens_that_see_the_whole_image_have_no_grid() -> None:
    class Global(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean((1, 2, 3), keepdim=True))

    assert find_grid(seeded(lambda: Global(list(range(4)))), torch.randn(1, 3, 8, 8), 4) is None
    assert find_grid(seeded(lambda: Planted("tokens")), torch.randint(0, 9, (2, 5)), 4) is None  # not images


@pytest.mark.parametrize(
    ("build", "size", "layer", "apart"),
    [
        (tiny_vit, (16, 16), "encoder.layers.encoder_layer_0", [0]),
        (lambda: Tokens([1, 0, 3, 2, 7, 6, 5, 4], 1, 2), (8, 16), "mix", [0, 9, 10]),
        (lambda: Tokens(list(range(4))), (8, 8), "mix", []),
    ],
)
def test_maps_and_tokens_apart_are_those_of_a_hook(
    build: Callable[[], nn.Module], size: tuple[int, int], layer: str, apart: list[int]
) -> None:
    model, images = seeded(build), torch.randn(5, 3, *size)
    seen: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = model(images)
    hook.remove()
    split, shapes = probe(model, layer, images[:1], images=images, tokens="patches")
    maps, others, found = capture_parts(split, images)
    rows, columns = size[0] // 4, size[1] // 4
    order = getattr(model, "order", list(range(rows * columns)))
    first = apart.count(0)
    for row in range(rows):
        for column in range(columns):
            token = first + order.index(row * columns + column)
            torch.testing.assert_close(torch.from_numpy(maps[:, row, column]), seen[0][:, token])
    assert shapes.apart == len(apart)
    if apart:
        assert others is not None
        torch.testing.assert_close(torch.from_numpy(others), seen[0][:, apart])
    torch.testing.assert_close(torch.from_numpy(found), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(run_head(split, maps, others)), logits, rtol=1e-4, atol=1e-5)
    changed = run_head(split, maps[..., ::-1], others)
    with torch.no_grad():
        patches = [token for token in range(seen[0].shape[1]) if token not in apart]
        turned = seen[0].clone()
        turned[:, patches] = turned[:, patches].flip(2)
        torch.testing.assert_close(torch.from_numpy(changed), split.head(turned), rtol=1e-4, atol=1e-5)
    assert abs(changed - found).max() > 1e-3
    if apart:
        with pytest.raises(ValueError, match=r"apart: expected \(n, k\) = \(5, \d\) tokens set apart, found \(5, 0\)"):
            run_head(split, maps)


def test_patches_that_change_places_change_places_in_the_map() -> None:
    model = seeded(tiny_vit)
    model.encoder.pos_embedding.data.zero_()  # type: ignore[operator,union-attr]  # torchvision's own
    images = torch.randn(2, 3, 16, 16)
    split, _ = probe(model, "encoder.layers.encoder_layer_0", images[:1], images=images, tokens=[4, 4])
    cut = images.unfold(2, 4, 4).unfold(3, 4, 4)  # (n, C, 4, 4, 4, 4)
    turned = cut.flip(2).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    maps, apart, _ = capture_parts(split, images)
    others, same, _ = capture_parts(split, turned.contiguous())
    torch.testing.assert_close(torch.from_numpy(others), torch.from_numpy(maps).flip(1), rtol=1e-4, atol=1e-5)
    assert apart is not None
    assert same is not None
    torch.testing.assert_close(torch.from_numpy(same), torch.from_numpy(apart), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layer", "refused"), [("encoder.ln", True), ("encoder.layers.encoder_layer_0", False)])
def test_a_head_that_reads_only_the_class_token_is_refused(layer: str, refused: bool) -> None:
    torch.manual_seed(0)
    fresh: Any = tiny_vit().eval()  # its output layer is 0, as torchvision leaves it
    split = split_at(fresh, layer, torch.randn(1, 3, 16, 16))
    if not refused:
        assert read_as_patches(fresh, split, torch.randn(1, 3, 16, 16), None).layout.n_apart == 1
        return
    with pytest.raises(
        ValueError, match="that read the 16 patches, found that they read only the 1 set apart; name an"
    ):
        read_as_patches(fresh, split, torch.randn(1, 3, 16, 16), None)


def test_last_map_of_a_transformer_names_a_block() -> None:
    model = VisionTransformer(16, 4, 3, 2, 8, 8, num_classes=3).eval()
    with pytest.raises(ValueError, match=r"name a module, such as the block encoder.layers.encoder_layer_1$"):
        split_at(model, "last-map", torch.randn(1, 3, 16, 16))
