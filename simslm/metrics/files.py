"""The files of a run: Parquet tables and JSON, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simslm.errors import UsageError
from simslm.metrics.iterations import IterationTable
from simslm.metrics.quantiles import Distribution
from simslm.metrics.stages import KINDS, Stages
from simslm.metrics.whole import write_whole
from simslm.policies.partition import Split
from simslm.sim.log import STATUS, Life, Move, Window

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
    ("recomputed_tokens", pa.int64()),
    ("energy_j", pa.float64()),
)
ITERATIONS = (
    ("replica", pa.int64()),
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
SPECULATION = (("draft_tokens", pa.int64()), ("accepted_tokens", pa.int64()))
"""Columns of ``iterations.parquet`` where a replica of the run speculates."""
SOMETIMES = (
    ("counted", pa.bool_()),
    ("class", pa.string()),
    ("escalations", pa.int64()),
    ("program", pa.int64()),
    ("stage", pa.int64()),
    ("depends_on", pa.list_(pa.int64())),
)
"""Columns of ``requests.parquet`` where some requests are left out of the figures, there are classes or programs, or
requests may go on to another group."""
STAGES = (
    ("request_id", pa.int64()),
    ("replica", pa.int64()),
    ("kind", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("tokens", pa.int64()),
    ("iterations", pa.int64()),
)
MOVES = (
    ("request_id", pa.int64()),
    ("source", pa.int64()),
    ("target", pa.int64()),
    ("at_s", pa.float64()),
    ("kind", pa.string()),
)
SPLITS = (
    ("device", pa.int64()),
    ("from_s", pa.float64()),
    ("prefill", pa.float64()),
    ("decode", pa.float64()),
)
LIFETIMES = (
    ("replica", pa.int64()),
    ("state", pa.string()),
    ("from_s", pa.float64()),
    ("to_s", pa.float64()),
)
CLOCKS = (("from_s", pa.float64()), ("sm_clock_mhz", pa.float64()))
OPTIONAL = ("moves", "splits", "lifetimes", "clocks")
"""Tables of runs in which requests went from one replica to another, devices were split, or a control plane gave
orders."""


def requests_arrow(columns: dict[str, np.ndarray]) -> pa.Table:
    """``requests.parquet``: one row per arrived request, nulls where nothing happened."""
    arrays = {name: _array(columns[name], kind) for name, kind in REQUESTS}
    arrays["replica"] = pa.array(columns["replica"], mask=columns["replica"] < 0)
    status = pa.DictionaryArray.from_arrays(pa.array(columns["status"], type=pa.int8()), list(STATUS))
    arrays["status"] = status.cast(pa.string())
    arrays |= {name: pa.array(columns[name], type=kind) for name, kind in SOMETIMES if name in columns}
    return pa.table(arrays)


def iterations_arrow(replica: int, table: IterationTable) -> pa.Table:
    """Rows of ``iterations.parquet``: some iterations of one replica, in order of time."""
    missing = np.full(len(table), np.nan)
    columns = table.columns | {"replica": np.full(len(table), replica)}
    wanted = ITERATIONS + SPECULATION * table.speculates
    return pa.table({name: _array(columns.get(name, missing), kind) for name, kind in wanted})


def stages_arrow(columns: dict[str, np.ndarray]) -> pa.Table:
    """Rows of ``stages.parquet``: what requests did when, see :class:`~simslm.metrics.stages.Stages`."""
    kinds = pa.DictionaryArray.from_arrays(pa.array(columns["kind"], type=pa.int8()), list(KINDS))
    arrays = {name: _array(columns[name], kind) for name, kind in STAGES if name != "kind"}
    return pa.table({name: arrays.get(name, kinds.cast(pa.string())) for name, _ in STAGES})


def moves_arrow(moves: Sequence[Move]) -> pa.Table:
    """Rows of ``moves.parquet``: every time a request went from one replica to another, in order of time."""
    columns = dict(zip(Move._fields, zip(*moves, strict=True), strict=False))
    return pa.table({name: pa.array(columns.get(name, ()), kind) for name, kind in MOVES})


def splits_arrow(splits: Mapping[int, Sequence[tuple[float, Split]]]) -> pa.Table:
    """``splits.parquet``: what share of a device's SMs each prefill and each decode replica has, and since when."""
    rows = [
        {"device": device, "from_s": from_s, "prefill": split.prefill, "decode": split.decode}
        for device, found in sorted(splits.items())
        for from_s, split in found
    ]
    return pa.Table.from_pylist(rows, pa.schema(SPLITS))


def lifetimes_arrow(lives: Sequence[Life], end_s: float) -> pa.Table:
    """``lifetimes.parquet``: what each replica was from when to when, up to the end of the run."""
    rows = [life._replace(to_s=min(life.to_s, end_s))._asdict() for life in lives if life.from_s <= end_s]
    return pa.Table.from_pylist(rows, pa.schema(LIFETIMES))


def clocks_arrow(clocks: Sequence[tuple[float, float]]) -> pa.Table:
    """``clocks.parquet``: the clock of all devices, and since when."""
    rows = [{"from_s": from_s, "sm_clock_mhz": clock_mhz} for from_s, clock_mhz in clocks]
    return pa.Table.from_pylist(rows, pa.schema(CLOCKS))


def gaps_arrow(gaps: Distribution) -> pa.Table:
    """``gaps.parquet``: the distribution of the gaps between output tokens at up to 500 exact points."""
    values, shares = gaps.thinned()
    return pa.table({"itl_s": values, "share": shares})


def _array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        return pa.array(values, type=kind, mask=np.isnan(values))
    return pa.array(values.astype(np.int64), type=kind)


class _Stream:
    """A Parquet file that grows under another name until it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._writer = pq.ParquetWriter(self._temporary, schema)

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows)

    def finish(self) -> None:
        self._writer.close()
        os.replace(self._temporary, self._path)

    def drop(self) -> None:
        """Leaves nothing of what is not finished."""
        self._writer.close()
        self._temporary.unlink(missing_ok=True)


class RunWriter:
    """Writes a run's directory: iterations, stages and the requests of a stream while the run goes on, the rest when it
    is over.

    Used as a context. Nothing is made before there is something to write; without :meth:`finish` all that was made is
    removed, new directories too.

    Args:
        directory: where the files go; made if it is not there.

    Raises:
        UsageError: from its methods, when it cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stages = Stages()
        self._streams: dict[str, _Stream] = {}
        self._made: list[Path] = []

    def __enter__(self) -> RunWriter:
        return self

    def take(self, replica: int, window: Window, table: IterationTable) -> None:
        """Writes the iterations of a window, and the stages that ended in it."""
        self._write("iterations", iterations_arrow(replica, table))
        self._write("stages", stages_arrow(self._stages.take(replica, window)))

    def take_requests(self, columns: dict[str, np.ndarray]) -> None:
        """Writes requests that are over, and come after those that were taken before."""
        self._write("requests", requests_arrow(columns))

    def take_moves(self, moves: Sequence[Move]) -> None:
        """Writes moves of requests, which come after those that were taken before."""
        self._write("moves", moves_arrow(moves))

    def finish(self, result: Result) -> None:
        """Writes what remains; now the files have their names. A replica's windows have all been taken."""
        if "iterations" not in self._streams:
            self._write("iterations", pa.schema(ITERATIONS).empty_table())
        self._write("stages", stages_arrow(self._stages.rest()))
        self.take_requests(result.request_columns)
        if result.log.moves:
            self.take_moves(result.log.moves)
        if result.log.splits:
            self._write("splits", splits_arrow(result.log.splits))
        if result.log.lives:
            self._write("lifetimes", lifetimes_arrow(result.log.lives, result.end_s))
        if result.log.clocks:
            self._write("clocks", clocks_arrow(result.log.clocks))
        self._forget_earlier_run()
        try:
            for stream in self._streams.values():
                stream.finish()
        except OSError as error:
            raise self._refused(error) from None
        gaps = gaps_arrow(result.token_gaps)
        write_whole(self.directory / "gaps.parquet", lambda path: pq.write_table(gaps, path))
        write_json(self.directory / "summary.json", result.summary)
        write_json(self.directory / "manifest.json", result.manifest)

    def _forget_earlier_run(self) -> None:
        """A directory that held another run keeps none of its files that this one does not have."""
        for name in OPTIONAL:
            if name not in self._streams:
                (self.directory / f"{name}.parquet").unlink(missing_ok=True)

    def __exit__(self, *_error: object) -> None:
        for stream in self._streams.values():
            stream.drop()
        for directory in self._made:
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()

    def _write(self, name: str, rows: pa.Table) -> None:
        """Adds rows to a table; it is made, with the directory, when there are the first."""
        try:
            if not self._streams:
                places = (self.directory, *self.directory.parents)
                self._made = list(takewhile(lambda place: not place.exists(), places))
                self.directory.mkdir(parents=True, exist_ok=True)
            if name not in self._streams:
                self._streams[name] = _Stream(self.directory / f"{name}.parquet", rows.schema)
            self._streams[name].write(rows)
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> UsageError:
        return UsageError(f"cannot be written ({error.strerror or error})", where=str(self.directory))


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
