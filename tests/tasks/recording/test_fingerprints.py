from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.updates.parameters import lay_out
from tasks.recording.fingerprints import BLOCK, Watched, estimated_norms, sampled_changes

WORDS = BLOCK // 8


def watched(module: nn.Linear) -> Watched:
    """Watch the weight of a module."""
    dtype = str(module.weight.dtype).removeprefix("torch.")
    return Watched(lay_out({"weight": (dtype, tuple(module.weight.shape))}), [(module, "weight")])


def summary(value: Tensor) -> bytes:
    """Return what a fingerprint sums up, word by word."""
    data = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    whole = len(data) // BLOCK * BLOCK
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    sums = [sum(words[at : at + WORDS]) % 2**64 for at in range(0, len(words), WORDS)]
    rest = data[whole:]
    return b"".join(each.to_bytes(8, "little") for each in sums) + rest + bytes(-len(rest) % 4)


def changed_in_place(module: nn.Linear) -> None:
    with torch.no_grad():
        module.weight.mul_(1.5)


def changed_unseen(module: nn.Linear) -> None:
    module.weight.data.mul_(1.5)


def another_parameter(module: nn.Linear) -> None:
    module.weight = nn.Parameter(module.weight.detach() * 2)


def other_order(module: nn.Linear) -> None:
    module.weight.data = module.weight.data.t().contiguous().t()


def odd_place(module: nn.Linear) -> None:
    values = module.weight.detach()
    room = torch.zeros(values.numel() + 1, dtype=values.dtype)
    room[1:] = values.reshape(-1)
    module.weight.data = room[1:].view(values.shape)


CHANGES = [changed_in_place, changed_unseen, another_parameter, other_order, odd_place]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3), (256, 256), (256, 257), (300, 500)])
def test_fingerprints_sum_the_words_of_whole_blocks_and_keep_the_rest(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    module = nn.Linear(shape[1], shape[0], dtype=dtype)
    found = watched(module).fingerprints()["weight"]
    assert found.summary is not None
    assert found.summary.tobytes() == summary(module.weight)
    values = module.weight.detach().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])
    assert np.isin(found.sample, values.numpy()).all()
    assert len(found.sample) == values.numel() or 8_192 <= len(found.sample) < 32_768


@pytest.mark.parametrize("again", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("first", CHANGES, ids=lambda change: change.__name__)
def test_a_weight_is_read_where_it_is_now(
    first: Callable[[nn.Linear], None], again: Callable[[nn.Linear], None]
) -> None:
    module = nn.Linear(300, 300)
    kept = watched(module)
    for change in (first, again):
        before = kept.fingerprints()
        assert kept.changed(before, strict=True) is None
        change(module)
        now, fresh = kept.fingerprints()["weight"], watched(module).fingerprints()["weight"]
        assert now.summary is not None
        assert fresh.summary is not None
        assert now.summary.tobytes() == fresh.summary.tobytes() == summary(module.weight)
        np.testing.assert_array_equal(now.sample, fresh.sample)
        assert now.version == fresh.version
        same = change in (other_order, odd_place)  # the values of a weight, and not their places
        assert [kept.changed(before, strict=strict) for strict in (False, True)] == [None if same else "weight"] * 2


SHAPES = [(1024, 1024), (4096, 4096), (1280, 1280), (640, 640), (1024, 784), (1024, 400), (500, 800), (320, 320, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_sample_meets_every_column_of_a_matrix(shape: tuple[int, ...]) -> None:
    """Of each sixteen columns at least one value is looked at, so that a change through `.data` in these is seen."""
    module = nn.Module()
    rows, columns = shape[0], int(np.prod(shape[1:]))
    module.weight = nn.Parameter(torch.arange(columns, dtype=torch.float32).repeat(rows, 1).view(shape))
    kept = Watched(lay_out({"weight": ("float32", shape)}), [(module, "weight")])
    before = kept.fingerprints()
    seen = np.unique(before["weight"].sample.view(np.float32).astype(int) // 16)
    assert seen.tolist() == list(range(-(-columns // 16)))
    assert len(before["weight"].sample) <= 2**14 + 16
    flat = module.weight.data.view(rows, columns)
    for low in range(0, columns, max(16, columns // 5 // 16 * 16)):
        flat[:, low : low + 16] += 1
        assert kept.changed(before, strict=False) == "weight"
        flat[:, low : low + 16] -= 1
    assert kept.changed(before, strict=False) is None


@pytest.mark.parametrize("columns", [784, 400, 1024])
def test_the_norm_of_an_update_of_some_columns_is_estimated(columns: int) -> None:
    """As where the first inputs of all images are 0, so that their weights have no gradient."""
    module = nn.Linear(columns, 1024, bias=False)
    kept, (parameter,) = watched(module), lay_out({"weight": ("float32", (1024, columns))})
    before = kept.fingerprints()["weight"].sample
    update = torch.randn(1024, columns, generator=torch.Generator().manual_seed(0))
    update[:, :28] = 0
    with torch.no_grad():
        module.weight += update
    changes = sampled_changes(parameter, [before, kept.fingerprints()["weight"].sample])
    assert estimated_norms(parameter, changes)[0] == pytest.approx(float(update.norm()), rel=0.05)
