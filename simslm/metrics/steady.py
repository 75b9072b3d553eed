"""Which requests a run's figures are of: the start of a run is not its steady state, and neither is its end.

A rule says how much is left out at both ends, :func:`counted` what that comes to. Requests are left out by their order
of arrival, however long they took: leaving them out by when they end would leave out the slow ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEADY = ("ttft_s", "tpot_s")
"""Latencies by which the start of a run is cut."""

BATCH = 5
"""Observations that MSER-5 takes the mean of."""

FEWEST_BATCHES = 10
"""Batches below which MSER-5 has nothing to go by: 50 observations."""

SEARCHED = 2 / 3
"""Share of the batches among which MSER-5 looks for its cut; one beyond the half is refused."""

ROUNDING = 1e-13
"""What is smaller of a sum of squares is what its subtraction left over."""

NOISE = 1e-9
"""Differences between batches, relative to the largest, that are rounding."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How much is left out at the start and at the end; where both keys of an end are 0 nothing is.

    Attributes:
        warmup_requests: the first to arrive.
        warmup_s: those that arrive so soon after the first.
        cooldown_requests: the last to arrive.
        cooldown_s: those that arrive so short before the last.
        steady: the start is cut by MSER-5 instead.
    """

    warmup_requests: int = 0
    warmup_s: float = 0.0
    cooldown_requests: int = 0
    cooldown_s: float = 0.0
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """The requests and the time that a rule keeps.

    Attributes:
        mask: which requests count, in the order in which they were given, bool, shape ``(requests,)``.
        begin_s, end_s: the time that rates are taken over: from the arrival of the first that counts (with
            ``warmup_s``: from the end of the warm-up) to the end of the run or, where there is a cool-down, to its
            beginning.
        before, after: requests left out at the start and at the end.
        steady: whether MSER-5 found a steady state; None where it was not asked.
    """

    mask: np.ndarray
    begin_s: float
    end_s: float
    before: int
    after: int
    steady: bool | None = None

    @property
    def seconds(self) -> float:
        return max(self.end_s - self.begin_s, 0.0)

    def within(self, time_s: np.ndarray) -> np.ndarray:
        """Which times lie within the time that counts; NaN does not."""
        return (time_s >= self.begin_s) & (time_s <= self.end_s)


def counted(
    arrival_s: np.ndarray,
    end_s: float,
    rule: Rule,
    finish_s: np.ndarray | None = None,
    series: Sequence[np.ndarray] = (),
) -> Counted:
    """Which requests count.

    Args:
        arrival_s: of each request, in any order, shape ``(requests,)``.
        end_s: of the run.
        rule: how much is left out.
        finish_s: when each request finished, NaN where it did not; for MSER-5.
        series: latencies of each request by which MSER-5 cuts, NaN where there is none, each of shape ``(requests,)``.
    """
    order = np.argsort(arrival_s, kind="stable")
    arrived = arrival_s[order]
    count = len(arrived)
    first, last = (float(arrived[0]), float(arrived[-1])) if count else (0.0, 0.0)
    steady: bool | None = None
    if rule.steady:
        ended = arrived if finish_s is None else finish_s[order]
        cut = truncation([each[order] for each in series], ended <= last)
        before, steady = cut or 0, cut is not None
    elif rule.warmup_s:
        before = int(np.searchsorted(arrived, first + rule.warmup_s, side="left"))
    else:
        before = min(rule.warmup_requests, count)
    if rule.cooldown_s:
        stop = int(np.searchsorted(arrived, last - rule.cooldown_s, side="left"))
    else:
        stop = count - min(rule.cooldown_requests, count)
    mask = np.zeros(count, dtype=bool)
    mask[order[before:stop]] = True
    begins = first + rule.warmup_s if rule.warmup_s else float(arrived[before]) if before < count else last
    ends = last - rule.cooldown_s if rule.cooldown_s else float(arrived[stop]) if stop < count else end_s
    return Counted(mask, begins, ends, before, count - stop, steady)


def truncation(series: Sequence[np.ndarray], before_the_last: np.ndarray) -> int | None:
    """How many requests at the start are no part of the steady state, by all of some latencies of them.

    Those that were under way when the last request arrived saw the load go down, and MSER-5 may take that for the
    change: it looks at a series with and without them.

    Args:
        series: each of shape ``(requests,)``, in order of arrival; NaN is passed over.
        before_the_last: which requests finished before the last one arrived, shape ``(requests,)``.

    Returns:
        The largest of their cuts; None where one of them, or all, has none.
    """
    cuts = []
    for values in series:
        known = ~np.isnan(values)
        if np.count_nonzero(known) < FEWEST_BATCHES * BATCH:
            continue
        both = (_cut(values, np.flatnonzero(some)) for some in (known, known & before_the_last))
        found = [cut for cut in both if cut is not None]
        if not found:
            return None
        cuts += found
    return max(cuts, default=None)


def _cut(values: np.ndarray, places: np.ndarray) -> int | None:
    """The place of the first of some values that MSER-5 keeps."""
    cut = mser5(values[places])
    return cut if not cut else int(places[cut])


def mser5(values: np.ndarray) -> int | None:
    """The truncation of a series by MSER-5: how many of its first observations to leave out.

    Of the means of batches of 5 it leaves out the first ``d`` with the smallest ``sum((y_i - mean)^2) / (n - d)^2``
    over the rest, the squared width of the confidence interval of their mean (White, Simulation 69(6), 1997;
    Spratt, M.S. thesis, University of Virginia, 1998). A cut beyond half of the series is refused, as there: then the
    series does not settle, or is too short to show it.

    Args:
        values: finite, in order, shape ``(n,)``.

    Returns:
        Observations to leave out, a multiple of 5; None where there is no such cut.
    """
    count = len(values) // BATCH
    if count < FEWEST_BATCHES:
        return None
    means = values[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    means = means - means.mean()
    # Sums over every rest of the series at once, from its end: MSER-5 in O(n) instead of O(n²).
    rest = np.arange(count, 0, -1)
    total, squares = (np.cumsum(each[::-1])[::-1] for each in (means, means**2))
    spread = squares - total**2 / rest
    # What rounding leaves of a constant series would otherwise be taken for a trend, and cut.
    spread[spread < rest * (NOISE * np.abs(values).max()) ** 2 + ROUNDING * squares[0]] = 0.0
    half = -(-count // 2)
    # The last few batches are left out of the search: over two or three of them the spread is small by chance. Cuts
    # beyond the half are searched all the same, because a minimum there says that nothing settles.
    cut = int(np.argmin((spread / rest**2)[: max(int(SEARCHED * count), half + 2)]))
    return None if cut > half else cut * BATCH
