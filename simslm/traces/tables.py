"""Bringing tables to the trace schema, and refusing rows that no measurement can have given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simslm.errors import TraceError, nearest
from simslm.traces.schema import TABLES

_POSITIVE = {"latency_s", "replicas", "relative_speed"}
_SIGNED = {"value"}
_HOST_SLACK = 1.0 + 1e-9


class RowError(TraceError):
    """A row that is wrong.

    Args:
        what: is wrong with it.
        row: its number, from 0.
        where, remedy: see :class:`simslm.errors.SimslmError`.
    """

    def __init__(self, what: str, row: int, *, where: str = "", remedy: str = "") -> None:
        super().__init__(f"{what} in row {row}", where=where, remedy=remedy)
        self.what = what
        self.row = row


def conform(name: str, data: Any, where: str = "") -> pa.Table:
    """``data`` as a table with exactly the columns, order and types of ``schema.TABLES[name]``.

    Args:
        name: table name.
        data: a pandas frame, a pyarrow table, or a dict of columns; nullable columns may be missing. A field
            that states a ``unit`` must state the schema's.
        where: place named in errors; the table's name when empty.

    Raises:
        TraceError: unknown or missing columns, another unit, or values that do not fit the type.
    """
    where = where or name
    schema = TABLES[name]
    table = _as_table(data, where)
    _check_columns(table, schema, where)
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(cast(table.column(field.name), field, where))
        else:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
    return pa.table(columns, schema=schema)


def verify(name: str, table: pa.Table, where: str) -> None:
    """Refuse what no measurement can have given: NaN, negative or zero durations, empty or absurd shapes.

    Raises:
        TraceError: naming the first row (from 0) at fault.
    """
    if table.num_rows == 0:
        raise TraceError("holds no rows", where=where, remedy="measure it again with `simslm profile`")
    for field in table.schema:
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            _verify_column(table, field.name, where)
    if name in ("iterations", "heldout"):
        _verify_shapes(table, where)


def _as_table(data: Any, where: str) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    try:
        if isinstance(data, dict):
            return pa.table(data)
        return pa.Table.from_pandas(data, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"cannot be read as a table ({error})", where=where) from error


def _check_columns(table: pa.Table, schema: pa.Schema, where: str) -> None:
    unknown = [column for column in table.column_names if column not in schema.names]
    if unknown:
        column = unknown[0]
        raise TraceError(f"unknown column {column!r}{nearest(column, schema.names)}", where=where)
    if len(set(table.column_names)) < len(table.column_names):
        raise TraceError("has two columns of one name", where=where)
    missing = [f.name for f in schema if not f.nullable and f.name not in table.column_names]
    if missing:
        raise TraceError(f"lacks column {', '.join(missing)}", where=where)
    for field in table.schema:
        expected = schema.field(field.name).metadata[b"unit"]
        unit = (field.metadata or {}).get(b"unit", expected)
        if unit != expected:
            raise TraceError(
                f"column {field.name!r} is in {unit.decode()!r}, expected {expected.decode()!r}",
                where=where,
                remedy="convert the values",
            )


def cast(column: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    """A column in the type of a field of the schema.

    Raises:
        RowError: naming the first value that is none of that type, or missing where none may be.
    """
    try:
        values = _converted(column, field.type)
    except pa.ArrowException as error:
        row = _first_refused(column, field.type)
        raise RowError(f"column {field.name!r} is not {field.type}: {error}", row, where=where) from error
    if values.null_count and not field.nullable:
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise RowError(f"column {field.name!r} is empty", row, where=where)
    return values


def _converted(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in another type; a whole number may be written as ``16.0``."""
    if pa.types.is_string(column.type) and pa.types.is_integer(kind):
        column = column.cast(pa.float64())
    return column.cast(kind)


def _first_refused(column: pa.ChunkedArray, kind: pa.DataType) -> int:
    """The first row whose value has no such type, where there is one."""
    first, behind = 0, len(column)
    while behind - first > 1:
        middle = (first + behind) // 2
        try:
            _converted(column.slice(first, middle - first), kind)
            first = middle
        except pa.ArrowException:
            behind = middle
    return first


def _verify_column(table: pa.Table, name: str, where: str) -> None:
    valid = table.column(name).drop_null()
    if len(valid) == 0:
        return
    values = valid.to_numpy()
    bad = ~np.isfinite(values)
    if name in _POSITIVE:
        bad |= ~(values > 0)
    elif name not in _SIGNED:
        bad |= ~(values >= 0)
    if bad.any():
        rows = np.flatnonzero(table.column(name).is_valid().to_numpy())
        first = np.flatnonzero(bad)[0]
        raise RowError(
            f"column {name!r} holds {values[first]}",
            int(rows[first]),
            where=where,
            remedy="a measurement cannot give that; drop the row or measure it again",
        )


def _verify_shapes(table: pa.Table, where: str) -> None:
    columns = {name: table.column(name).to_numpy() for name in table.column_names[:5]}
    faults = {
        "runs nothing": (columns["decode_seqs"] == 0) & (columns["prefill_tokens"] == 0),
        "has decode context without decoding sequences": (columns["decode_seqs"] == 0)
        & (columns["decode_ctx_tokens"] > 0),
        "has prompts without prompt tokens, or the reverse": (columns["prefill_seqs"] > 0)
        != (columns["prefill_tokens"] > 0),
        "has cached prompt tokens without a prompt": (columns["prefill_seqs"] == 0)
        & (columns["prefill_ctx_tokens"] > 0),
        "has fewer prompt tokens than prompts": columns["prefill_tokens"] < columns["prefill_seqs"],
        "has more host time than latency": _host_exceeds(table),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise RowError(fault, int(np.flatnonzero(rows)[0]), where=where)


def _host_exceeds(table: pa.Table) -> np.ndarray:
    host = pc.fill_null(table.column("host_s"), 0.0).to_numpy()
    return host > table.column("latency_s").to_numpy() * _HOST_SLACK
