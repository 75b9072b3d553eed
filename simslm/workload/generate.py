"""From the workload a user wrote to the requests of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.workload import ClosedLoopArrivals, Replay, Workload
from simslm.workload.arrivals import arrival_times
from simslm.workload.lengths import draw_lengths
from simslm.workload.readers import READERS
from simslm.workload.requests import ClosedLoop, RequestArrays
from simslm.workload.streams import stream


def generate(workload: Workload, seed: int, max_model_len: int, base_dir: Path) -> RequestArrays:
    """The requests a workload describes.

    Arrivals, prompts and outputs come from streams of their own: changing one does not redraw the others.

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
    prompt_tokens, output_tokens = columns["prompt_tokens"], columns["output_tokens"]
    if workload.max_tokens is None:
        max_tokens = np.maximum(max_model_len - prompt_tokens, 1)
    else:
        max_tokens = np.full(len(prompt_tokens), workload.max_tokens, dtype=np.int64)
        columns["output_tokens"] = np.minimum(output_tokens, max_tokens)
    return RequestArrays(max_tokens=max_tokens, **columns)


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
    return {
        "arrival_s": arrival_s,
        "prompt_tokens": _drawn(workload, "prompt_tokens", len(arrival_s), seed, base_dir),
        "output_tokens": _drawn(workload, "output_tokens", len(arrival_s), seed, base_dir),
        "source": f"generated: {arrivals.process} arrivals",
        "closed_loop": closed_loop,
    }


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
    return {
        "arrival_s": recording.arrival_s()[order] * replay.time_scale,
        "prompt_tokens": recording.prompt_tokens[order],
        "output_tokens": recording.output_tokens[order],
        "source": f"replayed: {replay.format} {path.name}",
        "dropped": recording.dropped,
        "notes": recording.notes,
    }
