"""The clients of a run: how urgent each request is, and how long its client waits.

Each is drawn from a stream of its own, request by request, so that neither moves arrivals or lengths, a
shorter workload is the beginning of a longer one, and requests may be handed over in pieces.
"""

from __future__ import annotations

import numpy as np

from simslm.scenario.workload import Workload
from simslm.workload.streams import Streams


def priorities(workload: Workload, count: int, streams: Streams) -> np.ndarray | None:
    """The priority of each request, shape ``(count,)``, int64; None where the workload states none."""
    if workload.priorities is None:
        return None
    ends = np.cumsum([priority.share for priority in workload.priorities])
    draws = streams["priorities"].random(count) * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, draws, side="right"), len(ends) - 1)
    return np.array([priority.value for priority in workload.priorities], dtype=np.int64)[chosen]


def patience(workload: Workload, count: int, streams: Streams) -> np.ndarray | None:
    """How long each client waits, shape ``(count,)``, seconds, inf for ever; None where all do.

    The timeout and the client's own time of leaving, whichever is smaller. That time is exponential: minus the
    mean times ``ln(1 - u)`` of a uniform ``u``.
    """
    timeout_s, cancellations = workload.timeout_s, workload.cancellations
    if timeout_s is None and cancellations is None:
        return None
    waits_s = np.full(count, np.inf if timeout_s is None else timeout_s)
    if cancellations is not None:
        chosen, uniform = streams["cancellations"].random((count, 2)).T
        leaves_s = -cancellations.mean_after_s * np.log1p(-uniform)
        waits_s = np.minimum(waits_s, np.where(chosen < cancellations.share, leaves_s, np.inf))
    return waits_s
