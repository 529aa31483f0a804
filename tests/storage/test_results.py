import numpy as np
import pandas as pd
import pytest

from storage.documents import DamagedError
from storage.results import read_table, table_bytes


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"id": np.arange(3), "key": ["a", "ü", ""], "x": [0.1, np.nan, -np.inf], "kept": [True, False, True]}
    )


def test_a_table_comes_back() -> None:
    pd.testing.assert_frame_equal(read_table(table_bytes(table()), "it"), table())


def test_the_index_is_not_kept() -> None:
    found = read_table(table_bytes(table().set_index(np.array([7, 8, 9]))), "it")
    assert list(found.index) == [0, 1, 2]


def test_an_empty_table_keeps_its_columns() -> None:
    found = read_table(table_bytes(table().iloc[:0]), "it")
    assert list(found.columns) == ["id", "key", "x", "kept"]
    assert len(found) == 0


def test_the_same_table_gives_the_same_bytes() -> None:
    assert table_bytes(table()) == table_bytes(table())


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no table at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_what_is_no_table_is_named(data: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^files/t\.parquet: expected a Parquet table, found "):
        read_table(data, "files/t.parquet")
