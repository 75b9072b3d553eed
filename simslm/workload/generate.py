"""From the workload a user wrote to the requests of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.workload import LONGEST_S, PREFIX_UNIT_TOKENS, ClosedLoopArrivals, Replay, Workload
from simslm.workload.arrivals import arrival_times
from simslm.workload.clients import patience, priorities
from simslm.workload.lengths import draw_lengths
from simslm.workload.prefixes import shared_prefixes
from simslm.workload.readers import READERS
from simslm.workload.requests import ClosedLoop, RequestArrays
from simslm.workload.streams import stream

REPLACED = "the workload's priorities stand in place of those of the trace"


def generate(workload: Workload, seed: int, max_model_len: int, base_dir: Path) -> RequestArrays:
    """The requests a workload describes.

    Arrivals, prompts, outputs, prefixes, priorities and cancellations come from streams of their own: changing
    one does not redraw the others.

    Args:
        workload: the scenario's workload.
        seed: the scenario's seed.
        max_model_len: the longest context, tokens. Where the workload declares no ``max_tokens``, a request's
            limit is what its prompt leaves of it, at least 1.
        base_dir: what paths are relative to.

    Raises:
        ScenarioError: when a file cannot be used, or no request comes out.
    """
    if workload.replay is not None:
        columns = _replayed(workload.replay, base_dir)
    else:
        columns = _generated(workload, seed, base_dir)
    _check_span(workload, columns)
    prompt_tokens, output_tokens = columns["prompt_tokens"], columns["output_tokens"]
    if workload.max_tokens is None:
        max_tokens = np.maximum(max_model_len - prompt_tokens, 1)
    else:
        max_tokens = np.full(len(prompt_tokens), workload.max_tokens, dtype=np.int64)
        columns["output_tokens"] = np.minimum(output_tokens, max_tokens)
    return RequestArrays(max_tokens=max_tokens, **columns | _clients(workload, columns, seed))


def _clients(workload: Workload, columns: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Priorities and patience: those the workload states, else, or whichever ends sooner, those of the trace."""
    count = len(columns["arrival_s"])
    urgent, waits_s = priorities(workload, count, seed), patience(workload, count, seed)
    recorded_s = columns.get("patience_s")
    if waits_s is None:
        waits_s = recorded_s
    elif recorded_s is not None:
        waits_s = np.minimum(waits_s, recorded_s)
    recorded = columns.get("priority")
    replaced = urgent is not None and recorded is not None
    return {
        "priority": recorded if urgent is None else urgent,
        "patience_s": waits_s,
        "notes": (REPLACED,) if replaced else (),
    }


def _check_span(workload: Workload, columns: Mapping[str, Any]) -> None:
    """The workload's times are such that a double still tells microseconds."""
    last_s = float(columns["arrival_s"][-1])
    loop = columns.get("closed_loop")
    if loop is not None:
        turns = -(-len(columns["arrival_s"]) // loop.concurrency)
        last_s = min(turns * loop.think_time_s, loop.until_s or math.inf)
    if not last_s <= LONGEST_S:
        raise ScenarioError(
            f"workload: its last request arrives after {last_s:.3g} s, but time is kept to {LONGEST_S:.3g} s",
            remedy="scale the trace" if workload.replay else "raise the rate or send fewer requests",
        )


def _generated(workload: Workload, seed: int, base_dir: Path) -> dict[str, Any]:
    arrivals = workload.arrivals
    assert arrivals is not None  # the model has made sure of it
    arrival_s = arrival_times(arrivals, workload.num_requests, workload.duration_s, stream(seed, "arrivals"))
    if not len(arrival_s):
        raise ScenarioError(
            f"workload: no request arrives within duration_s ({workload.duration_s:g})",
            remedy="raise duration_s or the arrival rate",
        )
    closed_loop = None
    if isinstance(arrivals, ClosedLoopArrivals):
        closed_loop = ClosedLoop(arrivals.concurrency, arrivals.think_time_s, workload.duration_s)
    columns = {
        "arrival_s": arrival_s,
        "prompt_tokens": _drawn(workload, "prompt_tokens", len(arrival_s), seed, base_dir),
        "output_tokens": _drawn(workload, "output_tokens", len(arrival_s), seed, base_dir),
        "source": f"generated: {arrivals.process} arrivals",
        "closed_loop": closed_loop,
    }
    if workload.prefixes is not None:
        columns["units"] = shared_prefixes(workload.prefixes, columns["prompt_tokens"], seed)
        columns["unit_tokens"] = PREFIX_UNIT_TOKENS
    return columns


def _drawn(workload: Workload, name: str, count: int, seed: int, base_dir: Path) -> np.ndarray:
    try:
        return draw_lengths(getattr(workload, name), count, stream(seed, name), base_dir)
    except ScenarioError as error:
        message = f"workload.{name}: {error.message}"
        raise ScenarioError(message, where=error.where, remedy=error.remedy) from None


def _replayed(replay: Replay, base_dir: Path) -> dict[str, Any]:
    """The trace's requests by arrival, ties in the file's order, the first at time 0."""
    path = base_dir / replay.path
    recording = READERS[replay.format](path)
    if not len(recording.ticks):
        dropped = ", ".join(f"{count} {reason}" for reason, count in recording.dropped.items())
        raise ScenarioError(
            f"holds no request{f' (dropped: {dropped})' if dropped else ''}",
            where=str(path),
            remedy="choose another file or format",
        )
    order = np.argsort(recording.ticks, kind="stable")[: replay.limit]
    units = recording.units
    with np.errstate(over="ignore"):  # infinite times are refused with all that are too late
        arrival_s = recording.arrival_s()[order] * replay.time_scale
    return {
        "arrival_s": arrival_s,
        "prompt_tokens": recording.prompt_tokens[order],
        "output_tokens": recording.output_tokens[order],
        "source": f"replayed: {replay.format} {path.name}",
        "dropped": recording.dropped,
        "priority": None if recording.priority is None else recording.priority[order],
        "session_id": None if recording.session_id is None else _renumbered(recording.session_id[order]),
        "patience_s": None if recording.patience_s is None else recording.patience_s[order],
        "units": None if units is None else [units[row] for row in order.tolist()],
        "unit_tokens": recording.unit_tokens,
    }


def _renumbered(sessions: np.ndarray) -> np.ndarray | None:
    """Session numbers in order of first arrival, without gaps; -1 stays, and None where there is no other."""
    numbers, first, inverse = np.unique(sessions, return_index=True, return_inverse=True)
    if numbers[-1] < 0:
        return None
    none = int(numbers[0] < 0)
    rank = np.empty(len(numbers), dtype=np.int64)
    rank[:none] = -1
    rank[none + np.argsort(first[none:])] = np.arange(len(numbers) - none)
    return rank[inverse]
