"""The files of a run directory, read once and checked before anything is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from simslm.errors import UsageError
from simslm.report.excerpt import Excerpt, excerpt

REQUEST_COLUMNS = (
    "request_id",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "replica",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "queue_s",
    "preemptions",
    "status",
)
ITERATION_COLUMNS = (
    "replica",
    "start_s",
    "duration_s",
    "decode_seqs",
    "decode_ctx_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "waiting",
    "running",
    "kv_blocks_used",
    "power_w",
    "host_s",
)
COUNTED = {"counted": 1.0}
"""Column of requests: whether a request counts; missing in a run that leaves none out."""

SPECULATION_COLUMNS = {"accepted_tokens": 0.0}
"""Column of iterations; 0 in a run without it."""

STAGE_COLUMNS = ("request_id", "replica", "kind", "start_s", "end_s", "tokens", "iterations")
MOVE_COLUMNS = ("request_id", "source", "target", "at_s", "kind")
SPLIT_COLUMNS = ("device", "from_s", "prefill", "decode")
LIFETIME_COLUMNS = ("replica", "state", "from_s", "to_s")
CLOCK_COLUMNS = ("from_s", "sm_clock_mhz")
GAP_COLUMNS = ("itl_s", "share")
SUMMARY_KEYS = (
    "name",
    "requests",
    "makespan_s",
    "throughput",
    "ttft_s",
    "tpot_s",
    "itl_s",
    "e2e_s",
    "queue_s",
)
MANIFEST_KEYS = ("scenario",)
REMEDY = "run `simslm simulate` again with `-o` this directory"

Columns = Mapping[str, np.ndarray]


class Range(NamedTuple):
    """Rows in which the number in a column is at least ``low`` and at most ``high``."""

    column: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RunTables:
    """What one run left behind.

    Attributes:
        requests: columns over arrived requests, each of shape ``(requests,)``; ``finished failed rejected`` (bool)
            stand for ``status``, ``counted`` (bool) says which the figures are of, unknown numbers are NaN.
        iterations: columns over iterations, each of shape ``(iterations,)``, in any order.
        stages: columns over what requests did when, ``decode`` (bool) for ``kind``; None where there is no such file.
        gaps: the distribution of the gaps between output tokens, thinned; None where there is no such file.
        summary: ``summary.json`` as written.
        manifest: ``manifest.json`` as written.
        moves: columns over the times at which a request went from one replica to another, ``kind`` (text) says why;
            None where none did.
        splits: columns over the splits of devices between prefill and decode replicas; None where there are none.
        lifetimes: columns over what each replica was (``state``, text) from when to when; None where all served all the
            time.
        clocks: columns over the clocks of the devices and since when; None where they did not change.
        excerpt: the stretch that the tables are of; None where they are of the whole run. The summary always is.
    """

    requests: Columns
    iterations: Columns
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    stages: Columns | None = None
    gaps: Columns | None = None
    excerpt: Excerpt | None = None
    moves: Columns | None = None
    splits: Columns | None = None
    lifetimes: Columns | None = None
    clocks: Columns | None = None

    @property
    def window_s(self) -> tuple[float, float] | None:
        """The simulated time that the figures are of; None where it is all of it."""
        begin, end = (figure_of(self.summary, f"counted.{name}") for name in ("begin_s", "end_s"))
        return None if begin is None or end is None else (begin, end)

    @property
    def span_s(self) -> float:
        """How long the simulated time is that the tables are of."""
        return self.excerpt.span_s if self.excerpt else figure_of(self.summary, "makespan_s") or 0.0

    @property
    def name(self) -> str:
        return str(self.summary["name"])

    @property
    def scenario(self) -> Mapping[str, Any]:
        return self.manifest["scenario"]


def read_drawn(directory: Path) -> RunTables:
    """Read and check a run directory as far as it is drawn: of a very long run an excerpt.

    Raises:
        UsageError: as :func:`read_run` does.
    """
    return read_run(directory, excerpt(directory))


def read_run(directory: Path, part: Excerpt | None = None) -> RunTables:
    """Read and check a run directory, or a part of it.

    Raises:
        UsageError: the directory or a file is missing, damaged, or lacks a column or key.
    """
    if not directory.is_dir():
        raise UsageError(
            "no such run directory", where=str(directory), remedy="give a directory with a run in it"
        )
    summary = _read_object(directory / "summary.json", SUMMARY_KEYS)
    manifest = _read_object(directory / "manifest.json", MANIFEST_KEYS)
    if not isinstance(manifest["scenario"], dict):
        raise UsageError("`scenario` is not an object", where=str(directory / "manifest.json"), remedy=REMEDY)
    numbers = times = None
    if part is not None:
        numbers = Range("request_id", part.first, part.last)
        times = Range("start_s", part.served_from_s, part.served_to_s)
    requests = _read_columns(directory / "requests.parquet", REQUEST_COLUMNS, COUNTED, within=numbers)
    iterations = _read_columns(
        directory / "iterations.parquet", ITERATION_COLUMNS, SPECULATION_COLUMNS, within=times
    )
    status = requests.pop("status")
    requests |= {name: status == name for name in ("finished", "failed", "rejected")}
    requests["counted"] = requests["counted"] > 0
    stages = _read_optional(directory / "stages.parquet", STAGE_COLUMNS, numbers)
    if stages is not None:
        stages["decode"] = stages.pop("kind") == "decode"
    gaps = _read_optional(directory / "gaps.parquet", GAP_COLUMNS)
    moves = _read_optional(directory / "moves.parquet", MOVE_COLUMNS, numbers)
    splits = _read_optional(directory / "splits.parquet", SPLIT_COLUMNS)
    return RunTables(
        requests,
        iterations,
        summary,
        manifest,
        stages,
        gaps,
        part,
        moves,
        splits,
        _read_optional(directory / "lifetimes.parquet", LIFETIME_COLUMNS),
        _read_optional(directory / "clocks.parquet", CLOCK_COLUMNS),
    )


def dig(mapping: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings, or ``default`` where there is none or it is null."""
    for key in path.split("."):
        if not isinstance(mapping, Mapping) or mapping.get(key) is None:
            return default
        mapping = mapping[key]
    return mapping


def figure_of(mapping: Any, path: str) -> float | None:
    """The finite number at a dotted path, or None."""
    value = dig(mapping, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    return float(value)


def _read_object(path: Path, required: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("the file is missing", where=str(path), remedy=REMEDY) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"not a readable JSON file ({error})", where=str(path), remedy=REMEDY) from None
    if not isinstance(content, dict):
        raise UsageError("expected a JSON object", where=str(path), remedy=REMEDY)
    if missing := [key for key in required if key not in content]:
        raise UsageError(f"missing keys: {', '.join(missing)}", where=str(path), remedy=REMEDY)
    return content


def _read_optional(
    path: Path, required: Sequence[str], within: Range | None = None
) -> dict[str, np.ndarray] | None:
    """The columns of a file that may be missing; None where it is."""
    return _read_columns(path, required, within=within) if path.exists() else None


def _read_columns(
    path: Path,
    required: Sequence[str],
    optional: Mapping[str, float] = MappingProxyType({}),
    *,
    within: Range | None = None,
) -> dict[str, np.ndarray]:
    """Columns that have to be there, and others, with a value where they are not; of all rows or those in a range."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if missing := [name for name in required if name not in file.schema_arrow.names]:
                raise UsageError(f"missing columns: {', '.join(missing)}", where=str(path), remedy=REMEDY)
            there = [name for name in optional if name in file.schema_arrow.names]
            names = [*required, *there]
            table = file.read(columns=names) if within is None else _rows_within(file, names, within)
    except FileNotFoundError:
        raise UsageError("the file is missing", where=str(path), remedy=REMEDY) from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"not a readable Parquet file ({reason})", where=str(path), remedy=REMEDY) from None
    absent = {name: np.full(len(table), value) for name, value in optional.items() if name not in there}
    return {name: _column(table.column(name)) for name in (*required, *there)} | absent


def _rows_within(file: Any, names: Sequence[str], within: Range) -> Any:
    """The rows of a Parquet file in a range, of which row groups that lie outside are not read."""
    import pyarrow as pa

    place = file.schema_arrow.names.index(within.column)
    parts = [file.schema_arrow.empty_table().select(names)]
    for group in range(file.num_row_groups):
        known = file.metadata.row_group(group).column(place).statistics
        if known is None or not known.has_min_max or (known.max >= within.low and known.min <= within.high):
            rows = file.read_row_group(group, columns=names)
            values = rows.column(within.column).to_numpy()
            parts.append(rows.filter((values >= within.low) & (values <= within.high)))
    return pa.concat_tables(parts)


def _column(column: Any) -> np.ndarray:
    """A column as an array: text as it is, numbers as floats with NaN for null."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
        return column.cast(pa.string()).to_numpy()
    return column.cast(pa.float64()).to_numpy()
