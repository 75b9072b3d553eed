"""What went on between replicas, as tables: requests that went from one to another, and splits of devices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simslm.report.division import Division
from simslm.report.limits import engine_limits, group_of
from simslm.report.tables import Columns, RunTables
from simslm.report.wording import count, share
from simslm.units import seconds

KINDS = {
    "hand-over": "a prefilled request goes to a decode replica",
    "return": "a request that was preempted there goes back to be prefilled again",
    "migration": "a request goes on at another replica, as the migration policy says; its KV blocks are copied",
    "failure": "the replica of a request failed; the request is computed again elsewhere",
    "held": "a replica serves again, and takes a request that waited for one",
    "escalation": "a request whose answer was not accepted goes on to a group that serves it anew",
}
"""What each kind of move is."""

WAIT = "from the move to the request's next iteration, with the copy of its KV blocks where there is one"
SPLIT = "the share of the device's SMs that each replica of a phase has; the mean is over time"


def between_phases(run: RunTables) -> list[Division]:
    """The tables of a run: none where no request went from one replica to another, and no device is split."""
    return [*_moves(run), *_splits(run)]


def _moves(run: RunTables) -> Iterator[Division]:
    moves = run.moves
    if moves is None:
        return
    names = [limits.group or limits.role for limits in engine_limits(run)]
    names = [name if len(names) > 1 else "a replica" for name in names] + [
        "no replica"
    ]  # number -1: the last
    source, target = (np.where(moves[end] < 0, -1, group_of(run, moves[end])) for end in ("source", "target"))
    wait_s = _waits(moves, run.stages)
    kinds = dict.fromkeys(moves["kind"].tolist())
    rows = []
    for kind, here, there in sorted(
        set(zip(moves["kind"].tolist(), source.tolist(), target.tolist(), strict=True))
    ):
        mine = (moves["kind"] == kind) & (source == here) & (target == there)
        known = wait_s[mine & np.isfinite(wait_s)]
        waits = [seconds(float(np.quantile(known, level))) if len(known) else "–" for level in (0.5, 0.99)]
        requests = len(np.unique(moves["request_id"][mine]))
        rows.append([kind, names[here], names[there], count(mine.sum()), count(requests), *waits])
    columns = ("move", "from", "to", "times", "requests", "wait p50", "wait p99")
    words = [(kind.capitalize(), KINDS[kind]) for kind in kinds if kind in KINDS]
    yield Division("moves", "Between replicas", columns, rows, [], [*words, ("Wait", WAIT)])


def _waits(moves: Columns, stages: Columns | None) -> np.ndarray:
    """From each move to the next stage of its request on the replica that it went to, seconds; NaN where none came.

    Moves and stages are put in one order: of each request on each replica by time, a move before a stage that begins at
    that instant. The stage that a move waited for is then the next row.
    """
    size = len(moves["at_s"])
    if stages is None:
        return np.full(size, np.nan)
    request = np.concatenate([moves["request_id"], stages["request_id"]])
    replica = np.concatenate([moves["target"], stages["replica"]])
    time = np.concatenate([moves["at_s"], stages["start_s"]])
    stage = np.arange(len(time)) >= size
    order = np.lexsort((stage, time, replica, request))
    this, following = order[:-1], order[1:]
    waited = ~stage[this] & stage[following]
    waited &= (request[this] == request[following]) & (replica[this] == replica[following])
    found = np.full(size, np.nan)
    found[this[waited]] = time[following[waited]] - time[this[waited]]
    return found


def _splits(run: RunTables) -> Iterator[Division]:
    splits = run.splits
    if splits is None:
        return
    rows = []
    end_s = float(np.max(run.iterations["start_s"] + run.iterations["duration_s"], initial=0.0))
    for device in np.unique(splits["device"]):
        mine = splits["device"] == device
        lasted = np.diff(np.append(splits["from_s"][mine], max(end_s, splits["from_s"][mine][-1])))
        for phase in ("prefill", "decode"):
            parts = splits[phase][mine]
            mean = float(np.average(parts, weights=lasted)) if lasted.sum() else float(parts[-1])
            ends = (parts[0], parts[-1], parts.min(), parts.max(), mean)
            rows.append(
                [f"device {device:.0f}, {phase}", *map(share, map(float, ends)), count(len(parts) - 1)]
            )
    columns = ("", "at first", "at last", "least", "most", "mean", "changes")
    yield Division("splits", "Split of the device", columns, rows, [], [("Split", SPLIT)])
