"""Tables as Parquet bytes, and back."""

import io

import pandas as pd

from storage.documents import DamagedError


def table_bytes(table: pd.DataFrame) -> bytes:
    """Return `table` as a Parquet file: the same table, the same bytes."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def read_table(data: bytes, what: str) -> pd.DataFrame:
    """Return the table that a Parquet file holds; DamagedError beginning with `what` if it is none."""
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{what}: not a Parquet table: {error}") from error
