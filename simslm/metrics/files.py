"""The files of a run: Parquet tables and JSON, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simslm.errors import UsageError
from simslm.sim.log import STATUS

if TYPE_CHECKING:
    from simslm.metrics.result import Result

REQUESTS = (
    ("request_id", pa.int64()),
    ("arrival_s", pa.float64()),
    ("prompt_tokens", pa.int64()),
    ("output_tokens", pa.int64()),
    ("replica", pa.int64()),
    ("first_scheduled_s", pa.float64()),
    ("first_token_s", pa.float64()),
    ("finish_s", pa.float64()),
    ("ttft_s", pa.float64()),
    ("tpot_s", pa.float64()),
    ("e2e_s", pa.float64()),
    ("queue_s", pa.float64()),
    ("cached_prompt_tokens", pa.int64()),
    ("preemptions", pa.int64()),
    ("energy_j", pa.float64()),
)
ITERATIONS = (
    ("start_s", pa.float64()),
    ("duration_s", pa.float64()),
    ("decode_seqs", pa.int64()),
    ("decode_ctx_tokens", pa.int64()),
    ("prefill_seqs", pa.int64()),
    ("prefill_tokens", pa.int64()),
    ("prefill_ctx_tokens", pa.int64()),
    ("waiting", pa.int64()),
    ("running", pa.int64()),
    ("kv_blocks_used", pa.int64()),
    ("power_w", pa.float64()),
    ("host_s", pa.float64()),
)


def requests_arrow(result: Result) -> pa.Table:
    """``requests.parquet``: one row per arrived request, nulls where nothing happened."""
    columns = result.request_columns
    arrays = {name: _array(columns[name], kind) for name, kind in REQUESTS}
    arrays["replica"] = pa.array(columns["replica"], mask=columns["replica"] < 0)
    status = pa.DictionaryArray.from_arrays(pa.array(columns["status"], type=pa.int8()), list(STATUS))
    arrays["status"] = status.cast(pa.string())
    return pa.table(arrays)


def iterations_arrow(result: Result) -> pa.Table:
    """``iterations.parquet``: the iterations of every replica, in order of time within each."""
    parts = []
    for index, table in enumerate(result.tables):
        missing = np.full(len(table), np.nan)
        arrays = {"replica": pa.array(np.full(len(table), index, dtype=np.int64))}
        arrays |= {name: _array(table.columns.get(name, missing), kind) for name, kind in ITERATIONS}
        parts.append(pa.table(arrays))
    return pa.concat_tables(parts)


def _array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        return pa.array(values, type=kind, mask=np.isnan(values))
    return pa.array(values.astype(np.int64), type=kind)


def write_run(result: Result, directory: Path) -> None:
    """Writes ``requests.parquet iterations.parquet summary.json manifest.json`` into ``directory``."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the output directory ({error.strerror})", where=str(directory)
        ) from None
    requests, iterations = requests_arrow(result), iterations_arrow(result)
    write_whole(directory / "requests.parquet", lambda path: pq.write_table(requests, path))
    write_whole(directory / "iterations.parquet", lambda path: pq.write_table(iterations, path))
    write_json(directory / "summary.json", result.summary)
    write_json(directory / "manifest.json", result.manifest)


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes under a temporary name in the same directory, then renames: a reader sees all of it or nothing.

    Raises:
        UsageError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror or error})", where=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
