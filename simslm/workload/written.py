"""Requests as a file that can be replayed: Parquet, CSV or JSON lines, written a piece at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import UsageError
from simslm.workload.requests import RequestArrays

ENDINGS = (".parquet", ".csv", ".jsonl")

Put = Callable[[Any], None]
"""Writes a pyarrow table."""


def check_writable(requests: RequestArrays) -> None:
    """Whether requests have times of their own, which a file can hold.

    Raises:
        UsageError: they wait for answers.
    """
    if requests.closed_loop is not None or requests.programs is not None:
        raise UsageError(
            "requests that wait for the answers of others have no times that a file could hold",
            remedy="simulate the scenario itself",
        )


def left_out(requests: RequestArrays) -> list[str]:
    """What requests have that a file does not hold."""
    found = {"prefixes": requests.units, "classes": requests.class_of}
    return [name for name, column in found.items() if column is not None]


def write_requests(path: Path, pieces: Iterable[RequestArrays], ending: str) -> int:
    """Writes requests, and returns how many there were.

    Args:
        path: of the file.
        pieces: in order; memory holds one at a time.
        ending: of :data:`ENDINGS`, for the kind of file.
    """
    count = 0
    columns: list[str] = []
    with _opened(path, ending) as put:
        for piece in pieces:
            columns = columns or _columns(piece)
            put(_table(piece, columns))
            count += len(piece)
    return count


def _columns(piece: RequestArrays) -> list[str]:
    optional = [name for name in ("priority", "session_id", "patience_s") if getattr(piece, name) is not None]
    return ["arrival_s", "prompt_tokens", "output_tokens", *optional]


def _table(piece: RequestArrays, columns: list[str]) -> Any:
    """The columns of a piece; nothing where a request has no session, or waits for ever."""
    import pyarrow as pa

    arrays = {}
    for name in columns:
        values = getattr(piece, name)
        blank = {"session_id": lambda v: v < 0, "patience_s": np.isinf}.get(name)
        arrays[name] = pa.array(values, mask=None if blank is None else blank(values))
    return pa.table(arrays)


@contextmanager
def _opened(path: Path, ending: str) -> Iterator[Put]:
    """A file of one of the kinds; its columns are those of the first table."""
    if ending == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            yield lambda table: file.writelines(map(_line, table.to_pylist()))
        return
    writer = None

    def put(table: Any) -> None:
        nonlocal writer
        if writer is None:
            writer = _writer(path, ending, table.schema)
        writer.write_table(table)

    try:
        yield put
    finally:
        if writer is not None:
            writer.close()


def _writer(path: Path, ending: str, schema: Any) -> Any:
    if ending == ".parquet":
        from pyarrow import parquet

        return parquet.ParquetWriter(path, schema)
    from pyarrow import csv

    return csv.CSVWriter(path, schema, write_options=csv.WriteOptions(quoting_style="none"))


def _line(row: dict[str, Any]) -> str:
    if row.get("session_id") is not None:
        row["session_id"] = str(row["session_id"])
    return json.dumps({name: value for name, value in row.items() if value is not None}) + "\n"
