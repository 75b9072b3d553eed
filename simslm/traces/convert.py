"""Making a trace of a table measured elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from simslm.errors import TraceError, nearest
from simslm.traces.files import Trace, write_trace
from simslm.traces.schema import ITERATIONS
from simslm.traces.shapes import SHAPE_COLUMNS


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
        TraceError: the file is missing, is no CSV, or its columns or values are not those of a trace.
    """
    columns = _read_columns(Path(csv))
    _fill_counts(columns)
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
    return write_trace(directory, provenance=provenance, iterations=pa.table(columns))


def _read_columns(csv: Path) -> dict[str, Any]:
    text = {field.name: pa.string() for field in ITERATIONS if pa.types.is_string(field.type)}
    options = pacsv.ConvertOptions(strings_can_be_null=True, column_types=text)
    try:
        table = pacsv.read_csv(csv, convert_options=options)
    except FileNotFoundError as error:
        raise TraceError("no such file", where=str(csv), remedy="check the path") from error
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"cannot be read as CSV ({str(error).splitlines()[0]})", where=str(csv)) from error
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
    return {name: table.column(name) for name in table.column_names}


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
