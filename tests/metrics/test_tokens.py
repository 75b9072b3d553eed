"""Token gaps and energy from the log equal those of a replay that writes every token down."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.synthetic import Lists, deployment

from simslm.metrics.tokens import token_gaps


def replayed(result) -> tuple[list[float], np.ndarray]:
    """Gaps and energy per request, token by token from segments, chunks and iterations."""
    times: dict[int, list[float]] = {}
    energy = np.zeros(len(result.request_columns["status"]))
    for log, table in zip(result.log.replicas, result.tables, strict=True):
        columns = table.columns
        decoding = [i for i in range(len(table)) if columns["decode_seqs"][i] > 0]
        for row in zip(*log.segment_table().values(), strict=True):
            request, emit, _, first, last = row
            times.setdefault(int(request), []).append(emit)
            for number in range(int(first), int(last)):
                i = decoding[number]
                times[int(request)].append(columns["end_s"][i])
                share = (1 - table.prefill_share[i]) / columns["decode_seqs"][i]
                energy[int(request)] += table.energy_j[i] * share
        for i, request, tokens in zip(*log.chunk_table().values(), strict=True):
            part = tokens / columns["prefill_tokens"][int(i)]
            energy[int(request)] += table.energy_j[int(i)] * table.prefill_share[int(i)] * part
    return [gap for row in times.values() for gap in np.diff(row)], energy


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["prefill-first", "chunked-prefill"]), st.integers(1, 2))
def test_gaps_and_energy_are_those_of_every_token(seed, batching, replicas):
    rng = np.random.default_rng(seed)
    requests = Lists.of(
        np.cumsum(rng.exponential(0.02, 30)), rng.integers(1, 80, 30), rng.integers(1, 60, 30)
    )
    result = simulate(requests, deployment(batching=batching, replicas=replicas, num_gpu_blocks=24))
    gaps = [token_gaps(log, table) for log, table in zip(result.log.replicas, result.tables, strict=True)]
    counted = np.concatenate([np.repeat(values, weights.astype(int)) for values, weights in gaps])
    written, energy = replayed(result)
    assert np.allclose(np.sort(counted), np.sort(written), rtol=1e-9, atol=1e-12)
    assert np.allclose(result.request_columns["energy_j"], energy, rtol=1e-9)
    assert result.summary["itl_s"]["max"] == max(counted)
