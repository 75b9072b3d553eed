"""The part of a run that counts: between a client's warm-up and cool-down, or while the batch is full."""

from __future__ import annotations

import numpy as np

from simslm.metrics.result import Result
from simslm.runs.table import CountedWindow, MeasuredRun

Span = tuple[float, float]


def counted_span(window: CountedWindow, arrival_s: np.ndarray, finish_s: np.ndarray) -> Span:
    """The part of a run that a client measured: begin and end, seconds.

    Where a simulation has served all requests before the window ends, the window ends with the last arrival.
    """
    begin, end = window.warmup_s, window.warmup_s + window.measured_s
    last = float(arrival_s.max())
    if last > begin:
        end = min(end, last)
    return begin, min(end, float(finish_s.max()))


def steady_span(run: MeasuredRun, first_token_s: np.ndarray, finish_s: np.ndarray) -> Span | None:
    """From the B-th first token to the (N - B)-th finish of N requests, B being how many are served at once.

    That is the window of ML.ENERGY's steady throughput (ml-energy/leaderboard). None where it is empty.
    """
    batch, count = min(run.max_num_seqs, run.concurrency or run.max_num_seqs), len(finish_s)
    if 2 * batch >= count:
        return None
    begin = float(np.sort(first_token_s)[batch - 1])
    end = float(np.sort(finish_s)[count - batch - 1])
    return (begin, end) if end > begin else None


def output_rate(result: Result, span: Span) -> float:
    """Output tokens per second that all replicas put out in a stretch of time."""
    first = result.request_columns["first_token_s"]
    tokens = float(((first > span[0]) & (first <= span[1])).sum())
    for table in result.tables:
        end = table.columns["end_s"]
        tokens += float(table.columns["decoding"][(end > span[0]) & (end <= span[1])].sum())
    return tokens / (span[1] - span[0])
