import pytest
import torch
from torch import nn

from tasks.io.models import cifar_vgg16
from tasks.recording.archives import Contents
from tasks.recording.factors import sample_numbers
from tasks.recording.hybrid_size import hybrid_bytes
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.sizes import check_budget, dense_bytes


def test_an_archive_has_every_value_of_every_step() -> None:
    # the paper's VGG-16 of 129 MB, 11,685 updates: 1.5 TB
    assert dense_bytes([(129_000_000 // 4,)], 11_685) == pytest.approx(1.5e12, rel=0.01)
    assert dense_bytes([(4, 2, 3, 3), (4,)], 10, itemsize=2) == (72 + 4) * 10 * 2
    assert dense_bytes([], 10) == 0


def test_more_than_the_budget_is_an_error_that_says_what_helps() -> None:
    check_budget(20 * 10**9, 20e9)
    with pytest.raises(
        ValueError,
        match=r"^archive_budget: expected at least 1\.51e\+03 GB for every update, found 20 GB; "
        r"raise it, or narrow record\.layers or record\.steps$",
    ):
        check_budget(1_510_000_000_000, 20e9)


@pytest.mark.parametrize(
    ("optimizer", "tolerance", "expected"),
    [
        ("SGD", 1e-3, 4 * 8 * (100 + 80) + 80 * 4 + 2 * 8 * 80 + 4 * 8 + 8 * 4),  # factors; few weights in 16 bits
        ("Adam", 1e-3, 2 * 8000 + 4 * 80 + 80 * 4 + 2 * 8 * 80 + 4 * 8 + 8 * 4),
        ("SGD", 1e-2, 2 * 8 * 180 * 7 // 10 + 80 * 4 + 2 * 8 * 80 + 4 * 8 + 8 * 4),  # halves, compressed
        ("Adam", 1e-2, 7000 + 4 * 80 + 80 * 4 + 2 * 8 * 80 + 4 * 8 + 8 * 4),
        ("Adam", 0.0, 4 * (8000 + 80 + 640 + 8)),
    ],
)
def test_the_bytes_of_a_hybrid_update(optimizer: str, tolerance: float, expected: int) -> None:
    """A layer of 100 x 80 weights and one of 80 x 8, both with a bias, in batches of 8."""
    chosen = {"a": nn.Linear(100, 80), "b": nn.Linear(80, 8)}
    layers, parameters, _ = recorded_parameters(chosen)
    numbers = {"a": 180, "b": 88}
    contents = Contents(layers, parameters, chosen, None, optimizer, 8, numbers, tolerance)
    assert hybrid_bytes(contents, 3) == 3 * expected


def test_the_papers_training_fits_160_gb() -> None:
    """VGG-16 at full width, batches of 88 and 40 ghosts, 11,685 updates, at the tolerance of 8 bits."""
    with torch.device("meta"):
        model = cifar_vgg16()
        chosen = choose_layers(model, None)
        numbers = sample_numbers(model, chosen, torch.empty(1, 3, 32, 32))
    assert numbers["features.0"] == (3 + 64) * 32 * 32
    assert numbers["classifier.1"] == 512 + 4096
    layers, parameters, _ = recorded_parameters(chosen)
    contents = Contents(layers, parameters, chosen, 11_685, "sgd", 128, numbers, 1e-2)
    assert 100e9 < hybrid_bytes(contents, 11_685) < 160e9
