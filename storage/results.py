"""Tables as Parquet bytes, and back."""

import io

import pandas as pd

from storage.documents import DamagedError


def table_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as a Parquet file; equal tables give equal bytes."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def read_table(data: bytes, what: str) -> pd.DataFrame:
    """Return the table in a Parquet file; DamagedError, with a text that begins with `what`, if there is none."""
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{what}: expected a Parquet table, found {error}") from error
