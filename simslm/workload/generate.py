"""From the workload a user wrote to the requests of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import LONGEST_S, ClosedLoopArrivals
from simslm.scenario.workload import Workload
from simslm.workload.arrivals import Arrived, arrival_pieces, clients_of
from simslm.workload.clients import patience, priorities
from simslm.workload.drawing import Drawing
from simslm.workload.replay import replayed, replayed_pieces
from simslm.workload.requests import RequestArrays
from simslm.workload.streams import Streams

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
    streams = Streams(seed)
    if workload.replay is not None:
        columns = replayed(workload, streams, base_dir)
    else:
        arrived = _together(list(_arrived(workload, streams)))
        columns = Drawing(workload, len(arrived.times_s), streams, base_dir).columns(arrived)
        columns |= _origin(workload)
    return _requests(workload, columns, streams, max_model_len)


def generated_pieces(
    workload: Workload, seed: int, max_model_len: int, base_dir: Path
) -> Iterator[RequestArrays]:
    """The same requests a piece at a time, so that memory does not grow with them; a replay is one piece.

    Args and raises: see :func:`generate`.
    """
    if workload.replay is not None:
        yield generate(workload, seed, max_model_len, base_dir)
        return
    total = workload.num_requests
    if total is None or workload.duration_s is not None:
        total = sum(len(piece.times_s) for piece in _arrived(workload, Streams(seed)))
    streams = Streams(seed)
    drawing = Drawing(workload, total, streams, base_dir)
    for arrived in _arrived(workload, streams):
        yield _requests(workload, drawing.columns(arrived) | _origin(workload), streams, max_model_len)


def request_pieces(
    workload: Workload, seed: int, max_model_len: int, base_dir: Path
) -> Iterator[RequestArrays]:
    """The same in pieces, of a replay as well, which has to be one that :func:`~simslm.workload.replay.in_order` says
    can be played so."""
    if workload.replay is None:
        yield from generated_pieces(workload, seed, max_model_len, base_dir)
        return
    streams = Streams(seed)
    for columns in replayed_pieces(workload, streams, base_dir):
        yield _requests(workload, columns, streams, max_model_len)


def _arrived(workload: Workload, streams: Streams) -> Iterator[Arrived]:
    """The arrivals of a generated workload; at least one."""
    found = False
    for piece in arrival_pieces(
        workload.arrivals, workload.num_requests, workload.duration_s, streams["arrivals"]
    ):
        found = True
        yield piece
    if not found:
        raise ScenarioError(
            f"workload: no request arrives within duration_s ({workload.duration_s:g})",
            remedy="raise duration_s or the arrival rate",
        )


def _together(pieces: list[Arrived]) -> Arrived:
    clients = [piece.client for piece in pieces if piece.client is not None]
    return Arrived(
        np.concatenate([piece.times_s for piece in pieces]), np.concatenate(clients) if clients else None
    )


def _origin(workload: Workload) -> dict[str, Any]:
    """Where generated requests come from."""
    arrivals = workload.arrivals
    assert arrivals is not None  # the model has made sure of it
    closed_loop = None
    if isinstance(arrivals, ClosedLoopArrivals):
        closed_loop = clients_of(arrivals, workload.duration_s)
    preset = "" if workload.preset is None else f"{workload.preset}, "
    return {"source": f"generated: {preset}{arrivals.process} arrivals", "closed_loop": closed_loop}


def _requests(
    workload: Workload, columns: dict[str, Any], streams: Streams, max_model_len: int
) -> RequestArrays:
    """Requests with their declared limits, and what their clients are like."""
    _check_span(workload, columns)
    prompt_tokens, output_tokens = columns["prompt_tokens"], columns["output_tokens"]
    if workload.max_tokens is None:
        max_tokens = np.maximum(max_model_len - prompt_tokens, 1)
    else:
        max_tokens = np.full(len(prompt_tokens), workload.max_tokens, dtype=np.int64)
        columns["output_tokens"] = np.minimum(output_tokens, max_tokens)
    return RequestArrays(max_tokens=max_tokens, **columns | _clients(workload, columns, streams))


def _clients(workload: Workload, columns: Mapping[str, Any], streams: Streams) -> dict[str, Any]:
    """Priorities and patience: those of the workload, else those of the trace; of two patiences the shorter."""
    count = len(columns["arrival_s"])
    urgent, waits_s = priorities(workload, count, streams), patience(workload, count, streams)
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
        "notes": (*columns.get("notes", ()), *([REPLACED] if replaced else [])),
    }


def _check_span(workload: Workload, columns: Mapping[str, Any]) -> None:
    """The workload's times are such that a double still tells microseconds."""
    last_s = float(columns["arrival_s"][-1])
    loop = columns.get("closed_loop")
    if loop is not None:
        turns = -(-len(columns["arrival_s"]) // loop.concurrency)
        last_s = min(max(last_s, turns * loop.think_time_s), loop.until_s or math.inf)
    if not last_s <= LONGEST_S:
        raise ScenarioError(
            f"workload: its last request arrives after {last_s:.3g} s, but time is kept to {LONGEST_S:.3g} s",
            remedy="scale the trace" if workload.replay else "raise the rate or send fewer requests",
        )
