"""Parquet files with the project's own columns, read a few row groups at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.workload.readers.fields import Field
from simslm.workload.readers.plain import FIELDS, OPTIONAL, REMEDY, TIME, requests
from simslm.workload.readers.recording import Recording
from simslm.workload.readers.table import NO_ROWS, check_file, check_once

PIECE_ROWS = 1 << 18


def read(path: Path) -> Iterator[Recording]:
    """The requests of one file."""
    return requests(_pieces(path))


def rows(path: Path) -> int:
    """How many there are.

    Raises:
        ScenarioError: the file is not Parquet.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(error, path, 0) from None


def _unreadable(error: Exception, path: Path, row: int) -> ScenarioError:
    text = str(error).splitlines()[0][:200]
    return ScenarioError(f"cannot be read as Parquet ({text})", where=_place(path, row), remedy=REMEDY)


def _pieces(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    check_file(path, REMEDY)
    row = 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            check_once(file.schema_arrow.names, str(path))
            fields = _fields(file.schema_arrow.names, path)
            for batch in file.iter_batches(PIECE_ROWS, columns=list(fields)):
                yield {
                    name: _column(batch.column(name), name, kind, path, row) for name, kind in fields.items()
                }
                row += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(error, path, row) from None
    if not row:
        raise ScenarioError(NO_ROWS, where=str(path), remedy=REMEDY)


def _place(path: Path, row: int) -> str:
    return f"{path}: row {row + 1:,}"


def _fields(names: list[str], path: Path) -> dict[str, Field]:
    missing = [name for name in FIELDS if name not in names]
    if missing:
        raise ScenarioError(
            f"has no column {', '.join(missing)}; it has {', '.join(names)[:200] or 'none'}",
            where=str(path),
            remedy=REMEDY,
        )
    return {**FIELDS, **{name: kind for name, kind in (TIME | OPTIONAL).items() if name in names}}


def _column(column: Any, name: str, kind: Field, path: Path, row: int) -> Any:
    """A column as its reader takes it.

    Raises:
        ScenarioError: naming the first row that is wrong.
    """
    import pyarrow as pa

    wanted = pa.type_for_alias(kind.arrow)
    numbers = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if kind.arrow == "string":
        return column.cast(wanted)
    if not numbers or (kind.arrow == "int64" and not pa.types.is_integer(column.type)):
        raise ScenarioError(
            f"{name}: expected {kind.expected}, found a column of {column.type}",
            where=str(path),
            remedy=REMEDY,
        )
    stated = column.drop_null() if kind.blank is not None else column
    if stated.null_count or not kind.holds(np.asarray(stated.cast(wanted).to_numpy(zero_copy_only=False))):
        wrong = next(i for i, value in enumerate(column.to_pylist()) if not kind.accepts(value))
        raise ScenarioError(
            f"{name}: expected {kind.expected}, found {column[wrong].as_py()!r}",
            where=_place(path, row + wrong),
            remedy=REMEDY,
        )
    filled = column.fill_null(kind.blank) if column.null_count else column
    return np.asarray(filled.cast(wanted).to_numpy(zero_copy_only=False))
