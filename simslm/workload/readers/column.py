"""One column of lengths, from a CSV (with a header) or Parquet file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simslm.errors import ScenarioError
from simslm.workload.readers.fields import TOKENS
from simslm.workload.readers.table import read_csv


def read_column(path: Path, column: str) -> np.ndarray:
    """The whole numbers of a column, int64, each at least 0.

    Raises:
        ScenarioError: when the file or the column cannot be used.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, column)
    remedy = f"an empirical distribution reads lengths from the column {column!r} of a CSV or Parquet file"
    return read_csv(path, {column: TOKENS}, remedy)[column]


def _read_parquet(path: Path, column: str) -> np.ndarray:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        if column not in schema.names or not pa.types.is_integer(schema.field(column).type):
            raise ScenarioError(f"has no column {column!r} of whole numbers", where=str(path))
        values = parquet.read_table(path, columns=[column]).column(column)
    except (OSError, pa.ArrowException) as error:
        raise ScenarioError(f"cannot be read as Parquet ({str(error)[:200]})", where=str(path)) from None
    if values.null_count:
        raise ScenarioError(f"column {column!r} is empty in {values.null_count} rows", where=str(path))
    lengths = np.asarray(values.to_numpy(), dtype=np.int64)
    if not TOKENS.holds(lengths):
        raise ScenarioError(f"column {column!r}: expected {TOKENS.expected} in every row", where=str(path))
    return lengths
