"""The lengths of the single requests of a measured run, and how they are brought to the run's means."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simslm.errors import ScenarioError, UsageError
from simslm.workload.readers.fields import LENGTH, SECONDS
from simslm.workload.readers.table import csv_pieces


def read_lengths(path: Path, where: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of each request, int64, in the file's order.

    Args:
        path: a CSV with the columns ``prompt_tokens`` and ``output_tokens``.
        where: the place that names the file, for errors.

    Raises:
        UsageError: the file is missing, or a row is wrong.
    """
    columns = _columns(path, where)
    return columns["prompt_tokens"], columns["output_tokens"]


def read_arrivals(path: Path, where: str = "") -> np.ndarray | None:
    """When each request of a file of lengths arrived, seconds: its column ``arrival_s``; None without one.

    Raises:
        UsageError: the file is missing, or a row is wrong.
    """
    return _columns(path, where).get("arrival_s")


def _columns(path: Path, where: str) -> dict[str, np.ndarray]:
    fields = {"prompt_tokens": LENGTH, "output_tokens": LENGTH}
    remedy = "a file of lengths is a CSV with the columns prompt_tokens,output_tokens"
    try:
        pieces = list(csv_pieces(path, fields, remedy, {"arrival_s": SECONDS}))
    except ScenarioError as error:
        remedy = f"it is the lengths_file of {where}" if where else error.remedy
        raise UsageError(error.message, where=error.where, remedy=remedy) from None
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def rescale(lengths: np.ndarray, mean: float) -> np.ndarray:
    """Lengths times one factor, in whole tokens, at least 1 each, with a given mean.

    The sum is the nearest whole number of tokens to ``mean * n``. What a factor makes less than 1 is 1, and the
    factor makes up for it. Rounding is carried on from each length to the next: the sum of the first ``k`` is
    that of the exact lengths, rounded to the nearest token, so no length is a token or more away from its own.

    Args:
        lengths: shape ``(n,)``, at least 1 each.
        mean: at least 1.
    """
    total = round(mean * len(lengths))
    if total <= len(lengths):
        return np.ones(len(lengths), dtype=np.int64)
    exact = np.asarray(lengths, dtype=float)
    small = np.zeros(len(exact), dtype=bool)
    while True:
        factor = (total - np.count_nonzero(small)) / exact[~small].sum()
        below = ~small & (exact * factor < 1)
        if not below.any():
            break
        small |= below
    ends = np.floor(np.cumsum(np.where(small, 1.0, exact * factor)) + 0.5)
    ends[-1] = total
    return np.diff(ends, prepend=0.0).astype(np.int64)
