"""Reading and writing a trace: a directory of Parquet files that belong together.

A trace is written whole or not at all, and read whole or refused with a :class:`TraceError` that names the
file and the remedy. What comes out of :func:`read_trace` has been through :mod:`simslm.traces.tables`, so no
later code meets a NaN, a negative latency or a missing column.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simslm.errors import TraceError, nearest
from simslm.traces.schema import (
    PROVENANCE_KEY,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    SOURCES,
    TABLES,
    VERSION_KEY,
    missing_provenance,
)
from simslm.traces.tables import conform, verify

_MEASURE_AGAIN = "measure it again with `simslm profile`"


@dataclass(frozen=True)
class Trace:
    """What was measured (or fitted, or imported) for one model on one device.

    Attributes:
        path: the directory it was read from.
        provenance: where every figure comes from; the keys of ``schema.REQUIRED_PROVENANCE`` are there.
        iterations: rows of ``schema.ITERATIONS``; None in a calibrated trace.
        kernels: rows of ``schema.KERNELS``, or None.
        power: rows of ``schema.POWER``, or None.
        terms: rows of ``schema.TERMS``, or None; a calibrated trace has them.
        heldout: rows of ``schema.ITERATIONS`` that no cost model is built from, or None.
    """

    path: Path
    provenance: dict[str, Any]
    iterations: pa.Table | None = None
    kernels: pa.Table | None = None
    power: pa.Table | None = None
    terms: pa.Table | None = None
    heldout: pa.Table | None = None

    @property
    def source(self) -> str:
        """``measured | calibrated | imported | roofline``."""
        return self.provenance["source"]

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables that are there, by name, in the order of ``schema.TABLES``."""
        return {name: table for name in TABLES if (table := getattr(self, name)) is not None}

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over provenance and column content; compression, row groups and columns of nulls do not change it."""
        digest = hashlib.sha256()
        digest.update(_provenance_json(self.provenance))
        for name, table in self.tables.items():
            for column in table.column_names:
                if table.column(column).null_count < table.num_rows:
                    digest.update(f"\0{name}.{column}\0".encode())
                    digest.update(_column_bytes(table.column(column)))
        return digest.hexdigest()


@dataclass(frozen=True)
class TraceSummary:
    """One line about a trace, from file metadata alone.

    Attributes:
        path: its directory.
        provenance: as written; empty when ``problem`` is set.
        rows: rows by table.
        problem: why it cannot be read; empty when it can.
    """

    path: Path
    provenance: dict[str, Any]
    rows: dict[str, int]
    problem: str = ""


def write_trace(
    directory: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    iterations: Any = None,
    kernels: Any = None,
    power: Any = None,
    terms: Any = None,
    heldout: Any = None,
) -> Trace:
    """Write a trace, whole or not at all, and return it.

    A trace already in ``directory`` is replaced; other files there (notes, a journal) stay.

    Args:
        directory: usually ``traces/<device>/<model>-<dtype>``; parents are made.
        provenance: JSON-able; must hold ``schema.REQUIRED_PROVENANCE[provenance["source"]]``.
        iterations, kernels, power, terms, heldout: pandas frames, pyarrow tables, or dicts of columns.
            Nullable columns may be left out; others may not, and unknown ones are refused.

    Raises:
        TraceError: a column, a unit, a value or the provenance is not as the schema says;
            nothing was written.
    """
    target = Path(directory)
    if target.exists() and not target.is_dir():
        raise TraceError("is a file, not a directory", where=str(target), remedy="choose another place")
    given = {
        "iterations": iterations,
        "kernels": kernels,
        "power": power,
        "terms": terms,
        "heldout": heldout,
    }
    tables = {name: conform(name, data) for name, data in given.items() if data is not None}
    provenance = _checked_provenance(provenance, where=str(target))
    _check_complete(tables, where=str(target))
    for name, table in tables.items():
        verify(name, table, where=str(target / f"{name}.parquet"))
    _restore(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only within one file system.
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        for name, table in tables.items():
            _write_table(staging / f"{name}.parquet", name, table, provenance)
        # ``mkdtemp`` makes directories that only their owner can read.
        staging.chmod(0o755)
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Trace(target, dict(provenance), **tables)


def flags_of(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings that every answer built on a trace repeats: a calibration that was forced, or that misses its own
    runs."""
    return tuple(map(str, provenance.get("flags") or ()))


def read_trace(directory: str | os.PathLike[str]) -> Trace:
    """Read and verify every table of a trace.

    Raises:
        TraceError: the directory or its files are missing, damaged, of another schema or version, from
            different traces, or hold impossible values.
    """
    path = Path(directory)
    files = _trace_files(path)
    tables: dict[str, pa.Table] = {}
    provenance: dict[str, Any] = {}
    for file in files:
        found = _metadata(file)[0]
        if provenance and found != provenance:
            raise TraceError(
                f"provenance differs from that of {files[0].name}",
                where=str(file),
                remedy="the files of a trace come from one measurement; remove what does not belong",
            )
        provenance = found
        tables[file.stem] = _read_table(file)
    _check_complete(tables, where=str(path))
    return Trace(path, provenance, **tables)


def list_traces(root: str | os.PathLike[str]) -> list[TraceSummary]:
    """Every trace under ``root``, damaged ones included, sorted by path; reads metadata only.

    Whole Parquet files of others, such as the iterations of a run, make no trace.
    """
    files = [file for name in TABLES for file in Path(root).rglob(f"{name}.parquet")]
    found = {file.parent for file in files if not file.parent.name.startswith(".") and not _is_foreign(file)}
    return [_summary(path) for path in sorted(found)]


def holds_trace(directory: str | os.PathLike[str]) -> bool:
    """Whether a trace, whole or damaged, would be replaced by one written there."""
    return any((Path(directory) / f"{name}.parquet").exists() for name in TABLES)


def is_trace(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds tables of a trace, whole or damaged, and not those of a run."""
    path = Path(directory)
    files = [file for name in TABLES if (file := path / f"{name}.parquet").exists()]
    return not (path / "summary.json").exists() and any(not _is_foreign(file) for file in files)


def _is_foreign(file: Path) -> bool:
    """Whether a file is whole but states no table of a trace."""
    try:
        return SCHEMA_KEY not in (pq.read_metadata(file).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _summary(path: Path) -> TraceSummary:
    try:
        metadata = {file.stem: _metadata(file) for file in _trace_files(path)}
    except TraceError as error:
        return TraceSummary(path, {}, {}, str(error))
    provenance = next(iter(metadata.values()))[0]
    return TraceSummary(path, provenance, {name: rows for name, (_, rows) in metadata.items()})


def _trace_files(path: Path) -> list[Path]:
    """The Parquet files of a trace, in the order of ``schema.TABLES``."""
    if not path.is_dir():
        old = _retired(path)
        remedy = f"its last version is in {old}; rename it back" if old.is_dir() else "check the path"
        raise TraceError("no such trace directory", where=str(path), remedy=f"{remedy}, or {_MEASURE_AGAIN}")
    files = [file for name in TABLES if (file := path / f"{name}.parquet").is_file()]
    if not any(file.stem in ("iterations", "terms") for file in files):
        raise TraceError(
            "a trace needs iterations.parquet or terms.parquet, and neither is there",
            where=str(path),
            remedy=_MEASURE_AGAIN,
        )
    return files


def _metadata(file: Path) -> tuple[dict[str, Any], int]:
    """The checked provenance and the number of rows of one file, from its footer."""
    try:
        parquet = pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from error
    metadata = parquet.metadata or {}
    name = metadata.get(SCHEMA_KEY, b"").decode(errors="replace")
    if name != file.stem:
        found = f"schema {name!r}" if name else "no simslm schema in its metadata"
        raise TraceError(
            f"has {found}, expected {file.stem!r}",
            where=str(file),
            remedy="convert foreign tables with `simslm traces import`",
        )
    version = metadata.get(VERSION_KEY, b"").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise TraceError(
            f"has schema version {version or 'none'}, this simslm reads version {SCHEMA_VERSION}",
            where=str(file),
            remedy="use the simslm it was written with, or measure it again",
        )
    try:
        provenance = json.loads(metadata.get(PROVENANCE_KEY, b""))
    except ValueError as error:
        raise TraceError(
            "its provenance is missing or not JSON", where=str(file), remedy=_MEASURE_AGAIN
        ) from error
    return _checked_provenance(provenance, where=str(file)), parquet.num_rows


def _read_table(file: Path) -> pa.Table:
    try:
        with pq.ParquetFile(file) as parquet:
            table = parquet.read()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from error
    table = conform(file.stem, table, where=str(file))
    verify(file.stem, table, where=str(file))
    return table


def _damaged(file: Path, error: Exception) -> TraceError:
    reason = str(error).splitlines()[0].rstrip(".")
    return TraceError(
        f"not a whole Parquet file ({reason})", where=str(file), remedy=f"fetch it again, or {_MEASURE_AGAIN}"
    )


def _check_complete(tables: Mapping[str, pa.Table], where: str) -> None:
    if "iterations" not in tables and "terms" not in tables:
        raise TraceError("a trace needs iterations, or the terms of a calibration", where=where)


def _checked_provenance(provenance: Any, where: str) -> dict[str, Any]:
    if not isinstance(provenance, Mapping):
        raise TraceError("its provenance is not an object", where=where, remedy=_MEASURE_AGAIN)
    source = provenance.get("source")
    if source is not None and source not in SOURCES:
        hint = nearest(str(source), SOURCES)
        raise TraceError(
            f"provenance.source is {source!r}, expected one of {', '.join(SOURCES)}{hint}", where=where
        )
    if missing := missing_provenance(provenance):
        raise TraceError(
            f"its provenance lacks {', '.join(missing)}", where=where, remedy="state them, null where unknown"
        )
    try:
        return json.loads(_provenance_json(provenance))
    except (TypeError, ValueError) as error:
        raise TraceError(f"its provenance is not plain JSON ({error})", where=where) from error


def _provenance_json(provenance: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(provenance), sort_keys=True, allow_nan=False, ensure_ascii=False).encode()


def _write_table(file: Path, name: str, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    metadata = {
        SCHEMA_KEY: name.encode(),
        VERSION_KEY: str(SCHEMA_VERSION).encode(),
        PROVENANCE_KEY: _provenance_json(provenance),
    }
    with file.open("wb") as sink:
        pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
        sink.flush()
        # Before the rename: after a power cut some file systems would show the new name with no content.
        os.fsync(sink.fileno())


def _retired(target: Path) -> Path:
    return target.parent / f".{target.name}.old.partial"


def _restore(target: Path) -> None:
    """Finish or undo a replacement that was killed half-way."""
    old = _retired(target)
    # Killed between the two renames of ``_swap``: the old trace is the only whole one.
    if old.is_dir() and not target.exists():
        old.rename(target)
    elif old.is_dir():
        _keep_others(old, target)


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; what is not part of the trace moves over."""
    if not target.exists():
        staging.rename(target)
        return
    old = _retired(target)
    target.rename(old)
    staging.rename(target)
    _keep_others(old, target)


def _keep_others(old: Path, target: Path) -> None:
    """Move all that is not a table of the trace from ``old`` to ``target``, then drop ``old``."""
    for entry in old.iterdir():
        is_table = entry.suffix == ".parquet" and entry.stem in TABLES
        if not is_table and not (target / entry.name).exists():
            entry.rename(target / entry.name)
    shutil.rmtree(old)


def _column_bytes(column: pa.ChunkedArray) -> bytes:
    """The same bytes for the same values in any chunks: validity, then values with nulls as zero."""
    if pa.types.is_string(column.type):
        return json.dumps(column.to_pylist(), ensure_ascii=False).encode()
    valid = column.is_valid().to_numpy()
    # What a null slot holds is undefined, and would change the hash from one writer to the next.
    values = column.fill_null(0).to_numpy()
    return np.packbits(valid).tobytes() + np.ascontiguousarray(values).astype(values.dtype.str).tobytes()
