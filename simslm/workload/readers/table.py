"""Columns of a CSV or JSON-lines file, read fast; a row that is wrong is named by its line.

pyarrow reads the columns at full speed. Only when it, or the check of a column, finds something wrong is the
file walked line by line to say where.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import numpy as np

from simslm.errors import ScenarioError
from simslm.workload.readers.fields import LABEL, NUMBER, Field

NO_ROWS = "the file has no rows"
_ROWS_ASKED = 1_000
"""Rows that say whether labels are numbers or texts."""
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

    header = _check_header(path, {**fields, **(optional or {})}, fields, remedy)
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

    A column of lists comes as a pyarrow array, with nothing where the key is missing. An optional key may be missing
    in any row, so that what a file means does not depend on the order of its rows; a piece in which no row has it
    has no such column.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    check_file(path, remedy)
    optional = optional or {}
    fields = {**fields, **optional}
    numbered = _numbered(path, [name for name, kind in fields.items() if kind is LABEL])
    types = {"list": pa.list_(pa.int64())}
    schema = pa.schema(
        [
            (name, pa.int64() if name in numbered else types.get(kind.arrow) or pa.type_for_alias(kind.arrow))
            for name, kind in fields.items()
        ]
    )
    parse = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    read = arrow_json.ReadOptions(block_size=_BLOCK_BYTES)
    opened = partial(arrow_json.open_json, path, read_options=read, parse_options=parse)
    for columns in _pieces(opened, path, fields, remedy, "JSON lines", optional):
        # Whole numbers are read as numbers and become text here, so that 1 and "1" are the same conversation.
        yield columns | {name: columns[name].cast(pa.string()) for name in numbered if name in columns}


def _numbered(path: Path, labels: Sequence[str]) -> list[str]:
    """Those of some label columns that hold numbers rather than texts, by the first rows that have them."""
    found: dict[str, bool] = {}
    for _, row in islice(_json_rows(path), _ROWS_ASKED) if labels else ():
        if isinstance(row, str):
            continue
        for name in labels:
            value = row.get(name)
            if value is not None:
                # The schema has to be known before the file is read: pyarrow takes one type for a column.
                found.setdefault(name, isinstance(value, int) and not isinstance(value, bool))
        if len(found) == len(labels):
            break
    return [name for name, number in found.items() if number]


def _pieces(
    opened: Callable[[], Any],
    path: Path,
    fields: Mapping[str, Field],
    remedy: str,
    kind: str,
    optional: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """What pyarrow reads piece by piece, checked; the row that it cannot read is found and named."""
    import pyarrow as pa

    some = False
    try:
        with opened() as reader:
            for batch in reader:
                some = some or len(batch) > 0
                here = {
                    name: each
                    for name, each in fields.items()
                    if name not in optional or batch.column(name).null_count < len(batch)
                }
                yield _columns(batch, path, here, remedy)
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


@dataclass(slots=True)
class Timing:
    """Whether the rows of a JSON-lines file have times: all of them, or none.

    Attributes:
        path: the file.
        name: of the column of times.
        remedy: what to do when only some have one.
        timed: None before the first piece.
        rows: of the pieces before.
    """

    path: Path
    name: str
    remedy: str
    timed: bool | None = None
    rows: int = 0

    def check(self, missing: np.ndarray) -> None:
        """Goes on with the next rows, a mask of which have no time.

        Raises:
            ScenarioError: some have one and some have none; it names the first that is not like those before it.
        """
        if self.timed is None and len(missing):
            self.timed = not bool(missing.all())
        unlike = np.flatnonzero(missing if self.timed else ~missing)
        if len(unlike):
            found = f"expected {NUMBER.expected}, found nothing" if self.timed else "rows before have none"
            raise ScenarioError(
                f"{self.name}: {found}",
                where=f"{self.path}:{line_of(self.path, self.rows + int(unlike[0]))}",
                remedy=self.remedy,
            )
        self.rows += len(missing)


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
    """The path is that of a file that is not empty; files are read several times, so a pipe will not do.

    Raises:
        ScenarioError: it is not.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ScenarioError(
            "is a pipe or a device, and a trace is read more than once",
            where=str(path),
            remedy="write it to a file first",
        )
    if not path.is_file():
        raise ScenarioError(
            "is a folder" if path.is_dir() else "no such file",
            where=str(path),
            remedy="a path is relative to the scenario's file",
        )
    if path.stat().st_size == 0:
        raise ScenarioError("the file is empty", where=str(path), remedy=remedy)


def _check_header(path: Path, used: Collection[str], needed: Collection[str], remedy: str) -> list[str]:
    check_file(path, remedy)
    with opened_text(path, newline="") as file:
        header = next(csv.reader(file), [])
    check_once([name for name in header if name in used], f"{path}:1")
    missing = [name for name in needed if name not in header]
    if missing:
        raise ScenarioError(
            f"the header has no column {', '.join(missing)}; it has {', '.join(header)[:200] or 'nothing'}",
            where=f"{path}:1",
            remedy=remedy,
        )
    return header


def check_once(names: Sequence[str], where: str) -> None:
    """No column is there twice.

    Raises:
        ScenarioError: one is, and which of the two is meant is not known.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ScenarioError(
            f"has the column {', '.join(twice)} twice", where=where, remedy="leave one of them out"
        )


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
