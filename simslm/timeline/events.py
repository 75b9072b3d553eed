"""Rows of a run's tables as trace events; times are whole nanoseconds until they are written, as microseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

Event = dict[str, Any]
Row = Mapping[str, Any]

REQUEST = "request"
ITERATIONS, LIFETIME = 1, 2
"""The threads of a replica on which its iterations are, and what it was when."""

GATEWAY = 1 << 20
"""The gateway among the replicas: beyond all of them, and the devices."""

SHAPE = ("decode_seqs", "decode_ctx_tokens", "prefill_seqs", "prefill_tokens", "prefill_ctx_tokens")
COUNTERS = (
    ("waiting", "waiting", "requests"),
    ("running", "running", "requests"),
    ("KV blocks used", "kv_blocks_used", "blocks"),
    ("power", "power_w", "W"),
)
"""Name on screens, column of ``iterations.parquet``, unit."""


def nanoseconds(time_s: float) -> int:
    return round(time_s * 1e9)


def microseconds(time_ns: int) -> float:
    return time_ns / 1000


def process(replica: int) -> int:
    """The process of a replica; 0 is the kernel's own in Perfetto."""
    return replica + 1


def named(replica: int, name: str) -> Iterator[Event]:
    """What a replica and its track are called."""
    pid = process(replica)
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": replica}}
    yield {"ph": "M", "pid": pid, "tid": ITERATIONS, "name": "thread_name", "args": {"name": "iterations"}}


@dataclass(slots=True)
class Slice:
    """One iteration, or several in a row of the same decoding sequences."""

    start_ns: int
    end_ns: int
    row: Row
    count: int = 1


@dataclass(slots=True)
class ReplicaTrack:
    """The iterations of one replica, taken in order of time.

    Args:
        replica: its number.
        idle_w: power while it idles; None = unknown.
        together: whether iterations in a row that decode the same number of sequences, and prefill none, are one
            slice.
    """

    replica: int
    idle_w: float | None
    together: bool
    last: Slice | None = None
    counted: dict[str, float] = field(default_factory=dict)

    def take(self, row: Row) -> Iterator[Event]:
        """The events that are certain once this iteration is known."""
        start = nanoseconds(row["start_s"])
        end = nanoseconds(row["start_s"] + row["duration_s"])
        last = self.last
        if last is not None:
            gap = start - last.end_ns
            # Times are rounded to nanoseconds one by one, so neighbours may miss each other by one.
            if gap <= 1:
                last.end_ns = start
            if self.together and gap <= 1 and _alike(last.row, row):
                last.end_ns, last.count = end, last.count + 1
                yield from self._count(row, start)
                return
            yield from self.close(idle=gap > 1)
        yield from self._count(row, start)
        self.last = Slice(start, end, row)

    def close(self, idle: bool = True) -> Iterator[Event]:
        """Closes the slice that is still open. ``idle``: nothing runs after it."""
        if self.last is None:
            return
        yield self._slice(self.last)
        if idle:
            nothing = {"waiting": 0, "running": 0, "kv_blocks_used": 0, "power_w": self.idle_w}
            yield from self._count(nothing, self.last.end_ns)
        self.last = None

    def _slice(self, found: Slice) -> Event:
        row = found.row
        kind = (
            "decode" if not row["prefill_tokens"] else "prefill + decode" if row["decode_seqs"] else "prefill"
        )
        args = {name: row[name] for name in SHAPE} | {"host_ms": round(1e3 * row["host_s"], 6)}
        if row["power_w"] is not None:
            args["power_w"] = row["power_w"]
        if found.count > 1:
            args = {"iterations": found.count, **args}
        return {
            "ph": "X",
            "cat": "iteration",
            "name": kind,
            "pid": process(self.replica),
            "tid": ITERATIONS,
            "ts": microseconds(found.start_ns),
            "dur": microseconds(max(found.end_ns - found.start_ns, 0)),
            "args": args,
        }

    def _count(self, row: Row, time_ns: int) -> Iterator[Event]:
        """The counters that change."""
        for name, column, unit in COUNTERS:
            value = row[column]
            if value is not None and self.counted.get(name) != value:
                self.counted[name] = value
                yield {
                    "ph": "C",
                    "name": name,
                    "pid": process(self.replica),
                    "tid": 0,
                    "ts": microseconds(time_ns),
                    "args": {unit: value},
                }


def _alike(first: Row, second: Row) -> bool:
    """Whether two iterations only decode, and as many sequences."""
    return (
        first["decode_seqs"] == second["decode_seqs"]
        and not first["prefill_tokens"] + second["prefill_tokens"]
    )


def move_event(row: Row) -> Event:
    """A request goes from one replica to another: an instant on the track of the one that it leaves.

    One that waits because no replica serves leaves none: then it is on the track of the one that takes it.
    """
    target = f"to replica {row['target']}" if row["target"] >= 0 else "to wait for a replica"
    return {
        "ph": "i",
        "s": "p",
        "cat": "move",
        "name": f"{row['kind']} {target}",
        "pid": process(row["source"] if row["source"] >= 0 else row["target"]),
        "tid": ITERATIONS,
        "ts": microseconds(nanoseconds(row["at_s"])),
        "args": {"request_id": row["request_id"], "target": row["target"]},
    }


def lifetime_track(replica: int) -> Event:
    """What the track of a replica's lifetime is called."""
    return {
        "ph": "M",
        "pid": process(replica),
        "tid": LIFETIME,
        "name": "thread_name",
        "args": {"name": "lifetime"},
    }


def lifetime_event(row: Row) -> Event:
    """What a replica was for some time: a slice of its lifetime."""
    begin, end = nanoseconds(row["from_s"]), nanoseconds(row["to_s"])
    return {
        "ph": "X",
        "cat": "lifetime",
        "name": row["state"],
        "pid": process(row["replica"]),
        "tid": LIFETIME,
        "ts": microseconds(begin),
        "dur": microseconds(end - begin),
    }


def clock_event(row: Row) -> Event:
    """The clock of all devices, as a counter beside the first replica."""
    return {
        "ph": "C",
        "name": "SM clock, MHz",
        "pid": process(0),
        "tid": 0,
        "ts": microseconds(nanoseconds(row["from_s"])),
        "args": {"clock": row["sm_clock_mhz"]},
    }


def split_event(row: Row, replicas: int) -> Event:
    """The split of a device between its prefill and decode replicas, as a counter of the device.

    Args:
        row: of ``splits.parquet``.
        replicas: how many there are; devices come after them.
    """
    return {
        "ph": "C",
        "name": "SM share",
        "pid": process(replicas + row["device"]),
        "tid": 0,
        "ts": microseconds(nanoseconds(row["from_s"])),
        "args": {"prefill": row["prefill"], "decode": row["decode"]},
    }


def request_events(row: Row, end_s: float) -> Iterator[Event]:
    """The life of a request that reached a replica: queue, prefill and decode inside it.

    Args:
        row: of ``requests.parquet``.
        end_s: end of the run, for requests that were still under way.
    """
    times = [row[name] for name in ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s")]
    known = [time for time in times if time is not None and isfinite(time)]
    over = max(known[-1], end_s) if row["status"] == "unfinished" else known[-1]
    args = {
        "request_id": row["request_id"],
        "prompt_tokens": row["prompt_tokens"],
        "output_tokens": row["output_tokens"],
        "cached_prompt_tokens": row["cached_prompt_tokens"],
        "preemptions": row["preemptions"],
        "status": row["status"],
    }
    spans = [(REQUEST, known[0], over, args)]
    bounds = [*known, over][: len(known) + (row["status"] == "unfinished")]
    phases: Sequence[str] = ("queue", "prefill", "decode")
    spans += [(name, a, b, {}) for name, a, b in zip(phases, bounds, bounds[1:], strict=False)]
    outer, *inner = [_async(row, *span) for span in spans]
    yield outer[0]
    for begin, end in inner:
        yield begin
        yield end
    yield outer[1]


def gateway_named() -> Iterator[Event]:
    """What the gateway's track is called; it comes before those of the replicas."""
    pid = process(GATEWAY)
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": "gateway"}}
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": -1}}


def gateway_events(row: Row) -> Iterator[Event]:
    """The life of a request that the gateway answered."""
    args = {name: row[name] for name in ("request_id", "prompt_tokens", "output_tokens", "status")}
    yield from _async({**row, "replica": GATEWAY}, REQUEST, row["arrival_s"], row["finish_s"], args)


def _async(row: Row, name: str, begin_s: float, end_s: float, args: Mapping[str, Any]) -> tuple[Event, Event]:
    event = {
        "cat": REQUEST,
        "name": name,
        "id": str(row["request_id"]),
        "pid": process(row["replica"]),
        "tid": 0,
    }
    begin = event | {"ph": "b", "ts": microseconds(nanoseconds(begin_s))}
    end = event | {"ph": "e", "ts": microseconds(nanoseconds(end_s))}
    return (begin | {"args": dict(args)} if args else begin), end
