"""Figures of a run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simslm.sim.log import FINISHED
from simslm.sim.world import Underway


def goodput_rps(underway: Underway, bounds: Mapping[str, float | None]) -> float | None:
    """Requests per simulated second, so far, that met every bound; None before anything arrived.

    Of a stream, so far is since the earliest request that is held.

    Args:
        underway: the run.
        bounds: by metric; only those of :data:`~simslm.metrics.definitions.LATENCIES` that requests have.
    """
    log, arrived = underway.log, np.frombuffer(underway.arrived_s)
    good = np.flatnonzero(np.frombuffer(log.status, dtype=np.int8) == FINISHED)
    first, finish, scheduled = (
        np.frombuffer(column)[good] for column in (log.first_token_s, log.finish_s, log.first_scheduled_s)
    )
    arrival = arrived[good]
    decoded = np.frombuffer(underway.output_tokens, dtype=np.int64)[good] - 1
    tpot = np.divide(finish - first, decoded, out=np.zeros(len(good)), where=decoded > 0)
    values = {
        "ttft_s": first - arrival,
        "tpot_s": tpot,
        "e2e_s": finish - arrival,
        "queue_s": scheduled - arrival,
    }
    met = np.ones(len(good), dtype=bool)
    for key, bound in bounds.items():
        if bound is not None:
            met &= values[key] <= bound
    elapsed = underway.time_s - float(np.nanmin(arrived))
    return float(np.count_nonzero(met)) / elapsed if elapsed > 0 else None
