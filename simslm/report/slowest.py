"""The slowest requests of a run, and the life of each: what it did when, and what its replica did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simslm.metrics.definitions import BY_KEY
from simslm.report.tables import Columns, RunTables
from simslm.report.timeline import Spans, bands
from simslm.report.wording import count
from simslm.units import seconds

RANKED = ("e2e_s", "ttft_s", "tpot_s")
"""Latencies by which requests are ranked."""

MOST = 10
"""Requests of each ranking."""

INTERVALS = 160
"""Intervals of the curves of the replica in the drawing of a life."""

MOST_BREAKS = 5
"""Breaks, and moves to other replicas, listed one by one."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What a request did from a time to a time, in seconds since its arrival.

    Attributes:
        kind: ``queue | prefill | decode | wait``, or ``prefill and wait | decode and wait`` where the run's files do
            not tell the two apart.
        pieces: of the prompt, or iterations.
    """

    kind: str
    start_s: float
    end_s: float
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """A request from its arrival to its end.

    Attributes:
        request_id, replica: what it is and where it was served.
        arrival_s: in simulated time.
        segments: without gaps between them, in order.
        events: what happened when, in words.
        edges_s: bounds of the intervals of what follows, since the arrival, shape ``(n + 1,)``.
        decoding, waiting: sequences decoding and requests waiting at its replica, means, shape ``(n,)``.
        prefill_rate: prompt tokens per second that its replica processed, shape ``(n,)``.
    """

    request_id: int
    replica: int
    arrival_s: float
    segments: Sequence[Segment]
    events: Sequence[tuple[str, str]]
    edges_s: np.ndarray
    decoding: np.ndarray
    waiting: np.ndarray
    prefill_rate: np.ndarray


@dataclass(frozen=True, slots=True)
class Ranking:
    """The requests that were slowest in one latency: its key and name, and a row of texts for each request."""

    key: str
    name: str
    rows: Sequence[tuple[int, Sequence[str]]]


COLUMNS = ("Request", "E2E", "TTFT", "TPOT", "Queue", "Preempted", "Prompt", "Output", "Replica", "Arrived")


def rankings(run: RunTables) -> list[Ranking]:
    """The slowest requests by each latency; a latency that no request has is left out."""
    found = []
    for key in RANKED:
        rows = [(int(run.requests["request_id"][i]), _cells(run, i)) for i in slowest(run.requests[key])]
        if rows:
            found.append(Ranking(key, BY_KEY[key].name, rows))
    return found


def slowest(values: np.ndarray) -> list[int]:
    """The positions of the largest known values, the largest first; of equals the earlier one."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) > MOST:
        least = np.partition(values[known], -MOST)[-MOST]
        known = known[values[known] >= least]
    return known[np.argsort(-values[known], kind="stable")[:MOST]].tolist()


def _cells(run: RunTables, row: int) -> list[str]:
    of = {name: float(column[row]) for name, column in run.requests.items()}
    times = (
        seconds(of[name]) if np.isfinite(of[name]) else "–"
        for name in ("e2e_s", "ttft_s", "tpot_s", "queue_s")
    )
    whole = (count(of[name]) for name in ("preemptions", "prompt_tokens", "output_tokens", "replica"))
    return [*times, *whole, f"{of['arrival_s']:,.2f} s"]


def lives(run: RunTables) -> list[Life]:
    """The life of each request that :func:`rankings` name, those slowest by the first latency first."""
    rows = dict.fromkeys(row for key in RANKED for row in slowest(run.requests[key]))
    stages = _stages_of(run, list(rows))
    replicas = {int(run.requests["replica"][row]) for row in rows}
    logs = {replica: _log(run.iterations, replica) for replica in replicas}
    return [_life(run, row, stages[row], logs[int(run.requests["replica"][row])]) for row in rows]


def _stages_of(run: RunTables, rows: Sequence[int]) -> dict[int, list[tuple[bool, float, float, int]]]:
    """The stages of some requests: whether one decodes, its start and end in simulated time, and its iterations."""
    found: dict[int, list[tuple[bool, float, float, int]]] = {row: [] for row in rows}
    if run.stages is None:
        return found
    by_id = {int(run.requests["request_id"][row]): row for row in rows}
    mine = np.flatnonzero(np.isin(run.stages["request_id"], list(by_id)))
    for i in mine[np.argsort(run.stages["start_s"][mine], kind="stable")].tolist():
        stage = tuple(run.stages[name][i] for name in ("decode", "start_s", "end_s", "iterations"))
        found[by_id[int(run.stages["request_id"][i])]].append(
            (bool(stage[0]), float(stage[1]), float(stage[2]), int(stage[3]))
        )
    return found


def _log(iterations: Columns, replica: int) -> Columns:
    """The iterations of a replica in order of time."""
    mine = np.flatnonzero(iterations["replica"] == replica)
    mine = mine[np.argsort(iterations["start_s"][mine], kind="stable")]
    names = ("replica", "start_s", "duration_s", "decode_seqs", "waiting", "prefill_tokens")
    return {name: iterations[name][mine] for name in names}


def _life(run: RunTables, row: int, stages: Sequence[tuple[bool, float, float, int]], log: Columns) -> Life:
    at = {name: float(column[row]) for name, column in run.requests.items()}
    segments = list(_segments(at, stages))
    edges = np.linspace(0.0, max(segments[-1].end_s, 1e-9), INTERVALS + 1)
    decoding, waiting, prefill = _meanwhile(log, edges + at["arrival_s"])
    events = list(_events(at, segments, _moves_of(run, at)))
    return Life(
        int(at["request_id"]),
        int(at["replica"]),
        at["arrival_s"],
        segments,
        events,
        edges,
        decoding,
        waiting,
        prefill,
    )


def _segments(at: dict[str, float], stages: Sequence[tuple[bool, float, float, int]]) -> Iterator[Segment]:
    """From the arrival to the end; stages that follow each other at once are one segment."""
    clock, arrival = 0.0, at["arrival_s"]
    first, token, finish = (at[name] - arrival for name in ("first_scheduled_s", "first_token_s", "finish_s"))
    if not stages:
        for kind, end in (("queue", first), ("prefill and wait", token), ("decode and wait", finish)):
            if np.isfinite(end) and end > clock:
                yield Segment(kind, clock, end)
                clock = end
        return
    last: Segment | None = None
    for decode, start_s, end_s, iterations in stages:
        start, end, kind = start_s - arrival, end_s - arrival, "decode" if decode else "prefill"
        if last is not None and last.kind == kind and start - last.end_s <= 1e-9 * end_s:
            last = Segment(kind, last.start_s, end, last.pieces + iterations)
            continue
        if last is not None:
            yield last
            clock = last.end_s
        if start > clock + 1e-9 * end_s:
            yield Segment("wait" if last is not None else "queue", clock, start)
        last = Segment(kind, start, end, iterations)
    if last is not None:
        yield last


def _moves_of(run: RunTables, at: dict[str, float]) -> list[tuple[float, int, int]]:
    """When after its arrival a request went from one replica to another: source and target."""
    if run.moves is None:
        return []
    mine = run.moves["request_id"] == at["request_id"]
    columns = (run.moves[name][mine].tolist() for name in ("at_s", "source", "target"))
    return [
        (time - at["arrival_s"], int(source), int(target))
        for time, source, target in zip(*columns, strict=True)
    ]


def _events(
    at: dict[str, float], segments: Sequence[Segment], moves: Sequence[tuple[float, int, int]]
) -> Iterator[tuple[str, str]]:
    """What happened, and when after the arrival."""
    yield "arrived", f"at {at['arrival_s']:,.3f} s of simulated time"
    if np.isfinite(at["queue_s"]):
        on = next((source for _, source, _ in moves if source >= 0), int(at["replica"]))
        yield "scheduled", f"{seconds(at['queue_s'])} later, on replica {on}"
    if np.isfinite(at["ttft_s"]):
        yield "first token", f"after {seconds(at['ttft_s'])}: {_prompt(at, segments)}"
    for time, _, target in moves[:MOST_BREAKS]:
        where = f"to replica {target}" if target >= 0 else "off its replica, to wait for one that serves"
        yield "moved", f"after {seconds(time)}, {where}"
    if len(moves) > MOST_BREAKS:
        yield "moved", _times(len(moves) - MOST_BREAKS, "more")
    breaks = [each for each in segments if each.kind == "wait" and each.start_s > at["ttft_s"]]
    for each in breaks[:MOST_BREAKS]:
        yield "break", f"after {seconds(each.start_s)}, for {seconds(each.end_s - each.start_s)}"
    if len(breaks) > MOST_BREAKS:
        rest = sum(each.end_s - each.start_s for each in breaks[MOST_BREAKS:])
        yield "breaks", f"{_times(len(breaks) - MOST_BREAKS, 'more')}, {seconds(rest)} together"
    if at["preemptions"]:
        yield "preempted", _times(int(at["preemptions"]), "time")
    if np.isfinite(at["e2e_s"]):
        yield "finished", f"after {seconds(at['e2e_s'])}, {count(at['output_tokens'])} output tokens"
    else:
        yield "ended", "without its last token"


def _prompt(at: dict[str, float], segments: Sequence[Segment]) -> str:
    """How much was prefilled before the first token, and in how many pieces where that is known."""
    until = at["ttft_s"] * (1 + 1e-9)
    pieces = sum(each.pieces for each in segments if each.kind == "prefill" and each.end_s <= until)
    return f"{count(at['prompt_tokens'])} prompt tokens" + (
        f" in {_times(pieces, 'piece')}" if pieces else ""
    )


def _times(number_of: int, word: str) -> str:
    return f"{number_of:,} {word}{'s' if number_of != 1 and word != 'more' else ''}"


def _meanwhile(log: Columns, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences decoding, requests waiting and prompt tokens per second of a replica between some times."""
    end = log["start_s"] + log["duration_s"]
    from_, to = np.searchsorted(end, edges[0], side="right"), np.searchsorted(log["start_s"], edges[-1])
    part = {name: column[from_:to] for name, column in log.items()}
    if not len(part["start_s"]):
        nothing = np.zeros(len(edges) - 1)
        return nothing, nothing, nothing
    spans = Spans.of(part)
    length = spans.end - spans.start
    rate = np.divide(part["prefill_tokens"], length, out=np.zeros_like(length), where=length > 0)
    return (
        bands(spans.total(part["decode_seqs"]), edges).mean,
        bands(spans.total(part["waiting"]), edges).mean,
        bands(spans.total(rate), edges).mean,
    )
