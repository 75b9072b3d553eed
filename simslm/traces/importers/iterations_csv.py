"""A trace of a CSV file with the columns of ``iterations.parquet``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from csv import reader as csv_rows
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from simslm.errors import TraceError, nearest
from simslm.traces.files import Trace, write_trace
from simslm.traces.schema import ITERATIONS
from simslm.traces.shapes import SHAPE_COLUMNS
from simslm.traces.tables import RowError, cast


def import_csv(
    csv: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    model: str,
    dtype: str,
    device: str,
    engine: str,
    date: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Trace:
    """Write the iterations of a CSV file as a trace with ``provenance.source`` = ``imported``.

    Args:
        csv: a table with the columns of ``schema.ITERATIONS``, one row per measured call. Only ``latency_s``
            and either ``decode_seqs`` and ``decode_ctx_tokens`` or ``prefill_tokens`` are needed: absent
            counts are 0, ``prefill_seqs`` is then 1 where there are prompt tokens, ``replicas`` 1,
            ``repeat`` is counted, and the rest is null.
        directory: where the trace goes; see :func:`simslm.traces.files.write_trace`.
        model, dtype, device: catalogue names.
        engine: name and version of the engine that was measured.
        date: ISO date of the measurement; None when unknown.
        more: further provenance, e.g. driver, CUDA version, command.

    Raises:
        TraceError: the file is missing, is no CSV, or its columns or values are not those of a trace; the first bad
            value is named by its line.
    """
    source = Path(csv)
    provenance = {
        **(more or {}),
        "source": "imported",
        "model": model,
        "dtype": dtype,
        "device": device,
        "engine": engine,
        "date": date,
        "imported_from": Path(csv).name,
    }
    try:
        columns = _read_columns(source)
        _fill_counts(columns)
        return write_trace(directory, provenance=provenance, iterations=pa.table(columns))
    except RowError as error:
        place = f"{source}:{_line_of(source, error.row)}"
        raise TraceError(error.what, where=place, remedy=error.remedy) from None


def _read_columns(csv: Path) -> dict[str, Any]:
    try:
        table = pacsv.read_csv(csv, convert_options=_as_text(_header(csv)))
    except FileNotFoundError as error:
        raise TraceError("no such file", where=str(csv), remedy="check the path") from error
    except (OSError, pa.ArrowException) as error:
        where = f"{csv}:{line}" if (line := _ragged_line(csv)) else str(csv)
        raise TraceError(f"cannot be read as CSV ({str(error).splitlines()[0]})", where=where) from error
    if len(set(table.column_names)) < len(table.column_names):
        raise TraceError("has two columns of one name", where=f"{csv}:1")
    for name in table.column_names:
        if name not in ITERATIONS.names:
            raise TraceError(
                f"unknown column {name!r}{nearest(name, ITERATIONS.names)}",
                where=str(csv),
                remedy=f"a trace has {', '.join(ITERATIONS.names)}",
            )
    if "latency_s" not in table.column_names:
        raise TraceError("lacks column latency_s", where=str(csv), remedy="seconds of each iteration")
    if not {"decode_seqs", "prefill_tokens"} & set(table.column_names):
        raise TraceError("lacks both decode_seqs and prefill_tokens", where=str(csv))
    return {
        name: cast(_trimmed(table.column(name)), ITERATIONS.field(name), str(csv))
        for name in table.column_names
    }


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function("utf8_trim_whitespace", [column])


def _header(csv: Path) -> list[str]:
    return next((row for _, row in _rows(csv)), [])


def _as_text(names: list[str]) -> pacsv.ConvertOptions:
    """Every column as it is written, so that a bad value is found in its row."""
    return pacsv.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        column_types=dict.fromkeys(names, pa.string()),
    )


def _rows(csv: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, its header first, each with the line it ends on; blank lines are none."""
    with csv.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv_rows(file)
        yield from ((reader.line_num, row) for row in reader if row)


def _line_of(csv: Path, row: int) -> int:
    """The line of a row counted from 0 below the header."""
    return next(line for line, _ in islice(_rows(csv), row + 1, None))


def _ragged_line(csv: Path) -> int | None:
    """The line of the first row that has not as many columns as the header."""
    width = len(_header(csv))
    return next((line for line, row in _rows(csv) if len(row) != width), None)


def _fill_counts(columns: dict[str, Any]) -> None:
    """Add the counts a CSV may leave out."""
    rows = len(columns["latency_s"])
    if "prefill_seqs" not in columns and "prefill_tokens" in columns:
        columns["prefill_seqs"] = (columns["prefill_tokens"].to_numpy() > 0).astype(np.int64)
    for name in SHAPE_COLUMNS:
        columns.setdefault(name, np.zeros(rows, dtype=np.int64))
    columns.setdefault("replicas", np.ones(rows, dtype=np.int64))
    if "repeat" not in columns:
        columns["repeat"] = _count_repeats(columns)


def _count_repeats(columns: dict[str, Any]) -> np.ndarray:
    """How many earlier rows have the same shape, by row."""
    seen: dict[tuple, int] = {}
    keys = (*SHAPE_COLUMNS, "replicas", "sharing", "sm_fraction", *_OTHERS)
    values = [np.asarray(columns[name]).tolist() for name in keys if name in columns]
    repeats = []
    for key in zip(*values, strict=True):
        repeats.append(seen.get(key, 0))
        seen[key] = repeats[-1] + 1
    return np.array(repeats, dtype=np.int64)


_OTHERS = tuple(name for name in ITERATIONS.names if name.startswith("other_"))
