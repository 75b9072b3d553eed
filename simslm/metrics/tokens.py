"""Token times without storing them: gaps between tokens from decode iterations and segments."""

from __future__ import annotations

import numpy as np

from simslm.metrics.iterations import IterationTable
from simslm.sim.log import ReplicaLog


def token_gaps(log: ReplicaLog, table: IterationTable) -> tuple[np.ndarray, np.ndarray]:
    """All gaps between consecutive output tokens of the same request, with how often each occurs.

    The gap between two consecutive decode iterations counts once for every sequence that decoded in both; the
    first gap of a segment runs from the end of its prefill (and, after a preemption, the gap before that
    from the request's last token to it).

    Returns:
        values in seconds and weights, both of shape ``(m,)``.
    """
    decoding = table.columns["decode_seqs"] > 0
    ends = table.end_s[decoding]
    segments = log.segment_table()
    first = segments["decode_from"].astype(np.int64)
    decoded = segments["decode_to"] > segments["decode_from"]
    again = segments["previous_s"] >= 0
    started = np.bincount(first[decoded], minlength=len(ends))
    shared = table.columns["decode_seqs"][decoding] - started
    opening = ends[first[decoded]] - segments["emit_s"][decoded]
    waiting = segments["emit_s"][again] - segments["previous_s"][again]
    values = np.concatenate([np.diff(ends), opening, waiting])
    weights = np.concatenate([shared[1:], np.ones(len(opening) + len(waiting))])
    return values, weights


def request_energy(log: ReplicaLog, table: IterationTable, requests: int) -> np.ndarray:
    """Joules charged to each request, shape ``(requests,)``; idle energy is charged to nobody.

    The decode part of an iteration is divided equally among its sequences, the prefill part among its chunks in
    proportion to their tokens.
    """
    energy = np.zeros(requests)
    assert table.energy_j is not None
    decoding = table.columns["decode_seqs"] > 0
    decode = table.energy_j[decoding] * (1 - table.prefill_share[decoding])
    total = np.concatenate([[0.0], np.cumsum(decode / table.columns["decode_seqs"][decoding])])
    segments = log.segment_table()
    charged = total[segments["decode_to"].astype(np.int64)] - total[segments["decode_from"].astype(np.int64)]
    np.add.at(energy, segments["request_id"].astype(np.int64), charged)
    chunks = log.chunk_table()
    iteration = chunks["iteration"].astype(np.int64)
    prefill = table.energy_j[iteration] * table.prefill_share[iteration]
    share = chunks["tokens"] / table.columns["prefill_tokens"][iteration]
    np.add.at(energy, chunks["request_id"].astype(np.int64), prefill * share)
    return energy
