"""Question 3 on tokens: the grid of patches that a network shows, for maps, means and outlined regions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.concepts import Concepts
from configs.schema import MiniBroden, Network
from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.figures.outline import BRIGHT
from tasks.io.mini_broden import MiniBrodenSource
from tasks.splitting.token_grid import TokenGrid
from tasks.steps.common.manifest import MANIFEST, manifest_spec, positions
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.samples import read_batch
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts.exemplars import _drawn
from tasks.steps.concepts.grids import as_maps, check_patches, pool_maps, read_grid
from tasks.steps.concepts.layer_maps import check_maps, image_range, layer_maps, read_sizes
from tasks.steps.concepts.responses import RESPONSES, read_pooled, responses_specs
from tasks.steps.concepts.watched import UNKNOWN_STEP, Watched
from tests.tasks.engine.two_stages import job_at

COUNT = 12
GRID = TokenGrid(2, 4, tuple(range(1, 9)), (0, 9, 10))


class Registers(nn.Module):
    """A transformer of patches of 8 x 8 pixels, with a class token first and two registers last."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 6, 8, stride=8)
        self.first, self.last = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 2, 6))
        self.mix = nn.TransformerEncoderLayer(6, 2, 10, activation="gelu", batch_first=True)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        patches, n = self.cut(x).flatten(2).transpose(1, 2), len(x)
        tokens = self.mix(torch.cat([self.first.expand(n, -1, -1), patches, self.last.expand(n, -1, -1)], dim=1))
        found: Tensor = self.out(tokens[:, 0])
        return found


def responses_of(path: Path, layer: str, pool: str) -> tuple[Any, Any, NDArray[np.float64]]:
    """Return the job, the finished responses of wide images, and the layer's tokens from a plain loop."""
    torch.manual_seed(0)
    model = Registers().eval()
    torch.save(model.state_dict(), path / "weights.pt")
    given = {"model": f"{__name__}:Registers", "weights": str(path / "weights.pt")}
    network = Network.model_validate({**given, "preprocessing": {"mode": "RGB", "resize": [16, 32]}})
    asked = {"networks": ["small"], "layers": [layer], "probe": {"data": "probe"}, "pool": pool}
    job = job_at(path / "store")
    manifest = manifest_spec("probe", MiniBroden(source="mini-broden", count=COUNT, size=32))
    complete(job, MANIFEST, [manifest])
    watched = Watched("small", "given weights", UNKNOWN_STEP, network)
    spec = responses_specs(watched, manifest, Concepts.model_validate(asked), kept_maps=True)[layer]
    complete(job, RESPONSES, [spec])
    seen: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output))
    source = MiniBrodenSource(COUNT, 32, 0)
    keys = positions(job.store, manifest.path, None)["key"].tolist()
    with torch.no_grad():
        for key in keys:
            model(read_batch(source, preprocessing_of(spec.parameters["network"]), [key]).inputs)
    return job, spec, torch.cat(seen).double().numpy()


@pytest.mark.parametrize("layer", ["mix", "mix.linear1"])  # the end of a block, and hidden units of its MLP
def test_maps_are_the_patches_of_a_loop(tmp_path: Path, layer: str) -> None:
    job, spec, tokens = responses_of(tmp_path, layer, "patches")
    finished, width = open_finished(job.store, spec), tokens.shape[2]
    assert check_maps(spec, layer, PlanSurvey(None), "a.key") == (width, 2, 4)
    assert read_sizes(finished, layer) == (width, 2, 4)
    assert read_grid(finished, layer) == GRID
    span = image_range(job.store, spec, 0)
    maps = np.concatenate([found for _, found in layer_maps(job.store, spec, layer, span, torch.device("cpu"))])
    assert maps.shape == (COUNT, width, 2, 4)
    for row in range(2):
        for column in range(4):
            np.testing.assert_allclose(
                maps[:, :, row, column].astype(float), tokens[:, 1 + 4 * row + column], rtol=2e-3, atol=2e-3
            )
    np.testing.assert_allclose(read_pooled(finished, layer), tokens[:, 1:9].mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pool", "expected"), [("mean", slice(None)), ("first-token", slice(0, 1))])
def test_other_pools_see_all_tokens_or_the_first(tmp_path: Path, pool: str, expected: slice) -> None:
    job, spec, tokens = responses_of(tmp_path, "mix", pool)
    found = read_pooled(open_finished(job.store, spec), "mix")
    np.testing.assert_allclose(found, tokens[:, expected].mean(1), rtol=1e-4, atol=1e-5)


def test_a_planted_patch_is_outlined_where_it_lies() -> None:
    picture, grid = np.zeros((40, 80, 3), np.uint8), TokenGrid.first_apart(4, 8, 35)
    for row, column in [(0, 0), (3, 7), (2, 5)]:
        tokens = np.zeros((1, 35), np.float32)
        tokens[0, :3] = 9.0  # class and register tokens are not drawn
        tokens[0, 3 + 8 * row + column] = 1.0
        drawn = _drawn(picture, tokens, 0.5, grid)
        at = np.argwhere((drawn == BRIGHT).all(axis=2))
        assert len(at)
        np.testing.assert_allclose(at.mean(axis=0), [10 * row + 4.5, 10 * column + 4.5], atol=2.6)


def test_a_square_of_the_last_tokens_needs_no_record() -> None:
    values = np.arange(2 * 17 * 3, dtype=np.float32).reshape(2, 1, 17, 3)
    expected = values[:, 0, 1:].reshape(2, 4, 4, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(as_maps(values), expected)
    np.testing.assert_array_equal(as_maps(values, TokenGrid.first_apart(4, 4, 17)), expected)
    np.testing.assert_allclose(pool_maps(values, "patches"), expected.mean((2, 3)))
    maps = np.random.default_rng(0).random((2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(pool_maps(maps, "patches"), maps.mean((1, 2)), rtol=1e-6)  # of maps their mean


def test_patches_that_the_network_does_not_show_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^layer 'mix': `concepts.pool: patches`: expected tokens .* found 7 tokens; take"
    ):
        check_patches("mix", (1, 7), None)
    check_patches("mix", (1, 9), None)  # a square
    check_patches("mix", (1, 11), GRID)
    check_patches("conv", (5, 7), None)
