import pytest

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
