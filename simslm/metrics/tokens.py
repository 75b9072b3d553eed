"""Token times without storing them: gaps between tokens from decode iterations and segments."""

from __future__ import annotations

import numpy as np

from simslm.metrics.iterations import IterationTable
from simslm.sim.log import ReplicaLog


def token_gaps(log: ReplicaLog, table: IterationTable) -> tuple[np.ndarray, np.ndarray]:
    """All gaps between consecutive output tokens of the same request, with how often each occurs.

    The gap between two consecutive decode iterations counts once for every sequence that decoded in both; the
    gaps before a request's first decode iteration and across its preemptions are in the log one by one.

    Returns:
        values in seconds and weights, both of shape ``(m,)``.
    """
    decoding = table.columns["decoding"] > 0
    ends = table.end_s[decoding]
    shared = (table.columns["decoding"] - table.columns["starting"])[decoding]
    own = np.frombuffer(log.gaps, dtype=np.float64)
    values = np.concatenate([np.diff(ends), own])
    return values, np.concatenate([shared[1:], np.ones(len(own))])


def request_energy(log: ReplicaLog, table: IterationTable, requests: int) -> np.ndarray:
    """Joules charged to each request, shape ``(requests,)``; idle energy is charged to nobody.

    The decode part of an iteration is divided equally among the sequences that emit a token, the prefill part
    among the chunks in proportion to their tokens; padding is charged to those it was made for.
    """
    energy = np.zeros(requests)
    assert table.energy_j is not None
    decoding = table.columns["decoding"] > 0
    decode = table.energy_j[decoding] * (1 - table.prefill_share[decoding])
    total = np.concatenate([[0.0], np.cumsum(decode / table.columns["decoding"][decoding])])
    stays = log.stay_table()
    charged = total[stays["decode_to"].astype(np.int64)] - total[stays["decode_from"].astype(np.int64)]
    np.add.at(energy, stays["request_id"].astype(np.int64), charged)
    chunks = log.chunk_table()
    iteration = chunks["iteration"].astype(np.int64)
    prefill = table.energy_j[iteration] * table.prefill_share[iteration]
    together = np.bincount(iteration, chunks["tokens"], minlength=len(table))
    share = chunks["tokens"] / together[iteration]
    np.add.at(energy, chunks["request_id"].astype(np.int64), prefill * share)
    return energy
