"""Writes a run's timeline, streamed and whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simslm.errors import UsageError
from simslm.metrics.whole import write_whole
from simslm.timeline.events import (
    COUNTERS,
    SHAPE,
    Event,
    ReplicaTrack,
    clock_event,
    gateway_events,
    gateway_named,
    lifetime_event,
    lifetime_track,
    move_event,
    named,
    process,
    request_events,
    split_event,
)

NAME = "timeline.json"

EACH = 100_000
"""Iterations up to which each has a slice of its own; beyond, those in a row of the same decodes share one."""

ROWS = 65_536
"""Rows that are held at a time."""

ITERATIONS = ("replica", "start_s", "duration_s", "host_s", *SHAPE, *(column for _, column, _ in COUNTERS))
REQUESTS = (
    "request_id",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "replica",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "cached_prompt_tokens",
    "preemptions",
    "status",
)
MOVES = ("request_id", "source", "target", "at_s", "kind")
SPLITS = ("device", "from_s", "prefill", "decode")
LIFETIMES = ("replica", "state", "from_s", "to_s")
CLOCKS = ("from_s", "sm_clock_mhz")
REMEDY = "run `simslm simulate` again with `-o` this directory"


def write_timeline(directory: Path, target: Path | None = None) -> Path:
    """Writes the Chrome trace of a finished run from its files, and returns where it is.

    Args:
        directory: of the run.
        target: the file; None = :data:`NAME` in the directory.

    Raises:
        UsageError: a file is missing or damaged, or the trace cannot be written.
    """
    target = target or directory / NAME
    summary, manifest = (_json(directory / f"{name}.json") for name in ("summary", "manifest"))
    with (
        _table(directory / "iterations.parquet", ITERATIONS) as iterations,
        _table(directory / "requests.parquet", REQUESTS) as requests,
    ):
        together = iterations.metadata.num_rows > EACH
        events = chain(
            _events(iterations, requests, summary, manifest, together),
            _phase_events(directory, len(_names(manifest))),
            _control_events(directory),
        )
        write_whole(target, lambda path: _write(path, events, _about(manifest, together)))
    return target


def _about(manifest: dict[str, Any], together: bool) -> dict[str, Any]:
    """What Perfetto shows as the trace's own facts."""
    slices = (
        "iterations in a row that only decode, and as many sequences, are one slice; args.iterations says how many"
        if together
        else "each iteration is a slice"
    )
    return {"name": manifest["name"], "command": manifest.get("command", ""), "slices": slices}


def _write(path: Path, events: Iterator[Event], about: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"displayTimeUnit":"ms","otherData":{_text(about)},"traceEvents":[\n')
        separator = ""
        for event in events:
            file.write(separator + _text(event))
            separator = ",\n"
        file.write("\n]}\n")


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _events(
    iterations: pq.ParquetFile,
    requests: pq.ParquetFile,
    summary: dict[str, Any],
    manifest: dict[str, Any],
    together: bool,
) -> Iterator[Event]:
    names = _names(manifest)
    idle_w = _idle_power(summary, len(names))
    for replica, name in enumerate(names):
        yield from named(replica, name)
    tracks = [ReplicaTrack(replica, idle_w, together) for replica in range(len(names))]
    end_s = 0.0
    for row in _rows(iterations, ITERATIONS):
        end_s = max(end_s, row["start_s"] + row["duration_s"])
        yield from tracks[row["replica"]].take(row)
    for track in tracks:
        yield from track.close()
    if "gateway" in summary:
        yield from gateway_named()
    for row in _rows(requests, REQUESTS):
        if row["replica"] is not None:
            yield from request_events(row, end_s)
        elif row["status"] == "finished":
            yield from gateway_events(row)


def _phase_events(directory: Path, replicas: int) -> Iterator[Event]:
    """What went on between prefill and decode replicas, in a run that had them."""
    if (path := directory / "moves.parquet").exists():
        with _table(path, MOVES) as moves:
            yield from map(move_event, _rows(moves, MOVES))
    if (path := directory / "splits.parquet").exists():
        with _table(path, SPLITS) as splits:
            rows = list(_rows(splits, SPLITS))
        for device in sorted({row["device"] for row in rows}):
            name = {"name": f"device {device}"}
            yield {
                "ph": "M",
                "pid": process(replicas + device),
                "tid": 0,
                "name": "process_name",
                "args": name,
            }
        yield from (split_event(row, replicas) for row in rows)


def _control_events(directory: Path) -> Iterator[Event]:
    """What the control plane did, in a run that had one."""
    if (path := directory / "lifetimes.parquet").exists():
        with _table(path, LIFETIMES) as lifetimes:
            rows = list(_rows(lifetimes, LIFETIMES))
        for replica in sorted({row["replica"] for row in rows}):
            yield lifetime_track(replica)
        yield from map(lifetime_event, rows)
    if (path := directory / "clocks.parquet").exists():
        with _table(path, CLOCKS) as clocks:
            yield from map(clock_event, _rows(clocks, CLOCKS))


def _names(manifest: dict[str, Any]) -> list[str]:
    """The names of the replicas in their order, group by group."""
    groups = manifest["groups"]
    several = len(groups) > 1
    owners = [group for group in groups for _ in range(group["replicas"])]
    return [
        f"replica {i}, {group['name']}: {group['model']}" if several else f"replica {i}: {group['model']}"
        for i, group in enumerate(owners)
    ]


def _idle_power(summary: dict[str, Any], replicas: int) -> float | None:
    """Mean watts of an idle replica; None where power is unknown or none ever idled."""
    idle_j, busy = summary["energy"]["idle_j"], summary["utilization"]["busy"]
    up = summary["fleet"]["mean_replicas"] if "fleet" in summary else replicas
    idle_s = summary["makespan_s"] * up * (1 - busy)
    return idle_j / idle_s if idle_j is not None and idle_s > 1e-9 else None


def _rows(file: pq.ParquetFile, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=ROWS, columns=list(columns)):
        yield from batch.to_pylist()


def _table(path: Path, columns: tuple[str, ...]) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise UsageError("the file is missing", where=str(path), remedy=REMEDY) from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"not a readable Parquet file ({reason})", where=str(path), remedy=REMEDY) from None
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise UsageError(f"missing columns: {', '.join(missing)}", where=str(path), remedy=REMEDY)
    return file


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("the file is missing", where=str(path), remedy=REMEDY) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"not a readable JSON file ({error})", where=str(path), remedy=REMEDY) from None
