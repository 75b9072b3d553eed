"""Columns of a CSV or JSON-lines file, read fast; a row that is wrong is named by its line.

pyarrow reads the columns at full speed. Only when it, or the check of a column, finds something wrong is the
file walked line by line to say where.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import numpy as np

from simslm.errors import ScenarioError
from simslm.workload.readers.fields import Field

NO_ROWS = "the file has no rows"
_BLOCK_BYTES = 1 << 24
"""How much of a file is parsed at once; no line may be longer."""


def read_csv(path: Path, fields: Mapping[str, Field], remedy: str) -> dict[str, np.ndarray]:
    """Columns of numbers of a CSV file, whole: see :func:`csv_pieces`."""
    pieces = list(csv_pieces(path, fields, remedy))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in fields}


def csv_pieces(
    path: Path, fields: Mapping[str, Field], remedy: str, optional: Mapping[str, Field] | None = None
) -> Iterator[dict[str, Any]]:
    """Columns of a CSV file with a header, a few megabytes at a time; other columns are ignored.

    Args:
        path: the file.
        fields: kind of each column, by the name in the header.
        remedy: what to do when the file is not of this format.
        optional: kind of each column that may be missing.

    Yields:
        By name: a numpy array for numbers, a pyarrow array for text. Optional columns only where there are any.

    Raises:
        ScenarioError: naming file and line, what was expected, and the remedy.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    header = _check_header(path, fields, remedy)
    fields = {**fields, **{name: kind for name, kind in (optional or {}).items() if name in header}}
    types = {name: pa.type_for_alias(kind.arrow) for name, kind in fields.items()}
    convert = arrow_csv.ConvertOptions(column_types=types, include_columns=list(fields), null_values=[""])
    read = arrow_csv.ReadOptions(block_size=_BLOCK_BYTES)
    opened = partial(arrow_csv.open_csv, path, read_options=read, convert_options=convert)
    yield from _pieces(opened, path, fields, remedy, "CSV")


def json_pieces(
    path: Path, fields: Mapping[str, Field], remedy: str, optional: Mapping[str, Field] | None = None
) -> Iterator[dict[str, Any]]:
    """The same for a file with one JSON object per line; other keys are ignored.

    A column of lists comes as a pyarrow array, with nothing where the key is missing. Optional columns are those of
    the first line.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    check_file(path, remedy)
    if optional:
        _, first = next(_json_rows(path), (0, ""))
        fields = {**fields, **{name: kind for name, kind in optional.items() if name in first}}
    types = {"list": pa.list_(pa.int64())}
    schema = pa.schema(
        [(name, types.get(kind.arrow) or pa.type_for_alias(kind.arrow)) for name, kind in fields.items()]
    )
    parse = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    read = arrow_json.ReadOptions(block_size=_BLOCK_BYTES)
    opened = partial(arrow_json.open_json, path, read_options=read, parse_options=parse)
    yield from _pieces(opened, path, fields, remedy, "JSON lines")


def _pieces(
    opened: Callable[[], Any], path: Path, fields: Mapping[str, Field], remedy: str, kind: str
) -> Iterator[dict[str, Any]]:
    """What pyarrow reads piece by piece, checked; what it cannot read is found and named."""
    import pyarrow as pa

    some = False
    try:
        with opened() as reader:
            for batch in reader:
                some = some or len(batch) > 0
                yield _columns(batch, path, fields, remedy)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        blame(path, fields, remedy, f"cannot be read as {kind} ({_first_line(error)})")
    if not some:
        raise ScenarioError(NO_ROWS, where=str(path), remedy=remedy)


def blame(path: Path, fields: Mapping[str, Field], remedy: str, otherwise: str) -> NoReturn:
    """Raise for the first row that is wrong.

    Args:
        otherwise: what to say of the file when no single row is at fault.

    Raises:
        ScenarioError: always.
    """
    as_text, line = _is_csv(path), 0
    for line, row in _csv_rows(path) if as_text else _json_rows(path):
        fault = row if isinstance(row, str) else _fault(row, fields, as_text)
        if fault:
            raise ScenarioError(fault, where=f"{path}:{line}", remedy=remedy)
    raise ScenarioError(otherwise if line else NO_ROWS, where=str(path), remedy=remedy)


def _fault(row: Mapping[str, Any], fields: Mapping[str, Field], as_text: bool) -> str:
    """What is wrong with a row, empty when nothing is; a number in quotes is one only where all is text."""
    for name, kind in fields.items():
        value = row.get(name)
        quoted = isinstance(value, str) and kind.arrow != "string" and not as_text
        if quoted or not kind.accepts(value):
            return f"{name}: expected {kind.expected}, found {_shown(value)}"
    return ""


def _columns(table: Any, path: Path, fields: Mapping[str, Field], remedy: str) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, kind in fields.items():
        column = table.column(name)
        if column.null_count and kind.blank is None:
            blame(path, fields, remedy, f"{name} is empty in some rows")
        if kind.arrow == "list" and column.flatten().null_count:
            blame(path, fields, remedy, f"{name} has empty entries in some rows")
        if kind.arrow in ("string", "list"):
            columns[name] = column
            continue
        if not kind.holds(np.asarray(column.drop_null())):
            blame(path, fields, remedy, f"{name}: expected {kind.expected} in every row")
        filled = column.fill_null(kind.blank) if column.null_count else column
        columns[name] = np.asarray(filled.to_numpy(zero_copy_only=False))
    return columns


def line_of(path: Path, row: int) -> int:
    """The line of a JSON-lines file that its row number ``row`` stands on, both counted from their own first."""
    return next(line for number, (line, _) in enumerate(_json_rows(path)) if number == row)


def first_line(path: Path, most_bytes: int) -> str:
    """The first line of a text file that is not blank, without a byte-order mark."""
    with opened_text(path) as file:
        while line := file.readline(most_bytes):
            if line.strip():
                return line
    return ""


@contextmanager
def opened_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A text file to read, decompressed where its name ends in ``.gz``.

    Raises:
        ScenarioError: it cannot be decompressed, as far as it is read.
    """
    opening = partial(gzip.open, path, "rt") if path.suffix == ".gz" else partial(open, path)
    with opening(encoding="utf-8-sig", errors="replace", newline=newline) as file:
        try:
            yield cast(TextIO, file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ScenarioError(
                f"cannot be decompressed ({error})", where=str(path), remedy="fetch it again"
            ) from None


def check_file(path: Path, remedy: str) -> None:
    if not path.is_file():
        raise ScenarioError(
            "is a folder" if path.is_dir() else "no such file",
            where=str(path),
            remedy="a path is relative to the scenario's file",
        )
    if path.stat().st_size == 0:
        raise ScenarioError("the file is empty", where=str(path), remedy=remedy)


def _check_header(path: Path, fields: Mapping[str, Field], remedy: str) -> list[str]:
    check_file(path, remedy)
    with opened_text(path, newline="") as file:
        header = next(csv.reader(file), [])
    missing = [name for name in fields if name not in header]
    if missing:
        raise ScenarioError(
            f"the header has no column {', '.join(missing)}; it has {', '.join(header)[:200] or 'nothing'}",
            where=f"{path}:1",
            remedy=remedy,
        )
    return header


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and row; a text in place of a row says what is wrong with its shape."""
    with opened_text(path, newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        try:
            for row in reader:
                if row and len(row) != len(header):
                    yield reader.line_num, f"expected {len(header)} columns, found {len(row)}"
                elif row:
                    yield reader.line_num, dict(zip(header, row, strict=True))
        except csv.Error as error:
            yield reader.line_num + 1, f"not valid CSV ({error})"


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with opened_text(path) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield line, f"not valid JSON ({error})"
                continue
            yield line, row if isinstance(row, dict) else "expected one JSON object per line"


def _is_csv(path: Path) -> bool:
    """Whether the file's first line is that of a CSV header rather than a JSON object."""
    return not first_line(path, 1 << 16).lstrip().startswith("{")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
