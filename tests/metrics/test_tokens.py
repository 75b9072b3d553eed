"""Token gaps and energy from the log equal those of a witness that writes every token down as it comes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.synthetic import Lists, deployment

from simslm.metrics.tokens import token_gaps
from simslm.sim.replica import Replica


class Witness:
    """Notes ``(replica, iteration, time)`` of every token of a run that goes step by step."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.tokens: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        self.decoded: dict[int, list[tuple[int, int]]] = defaultdict(list)
        decode, emit = Replica._decode, Replica._emit

        def seen_decode(replica, iterations, first_s, now):
            place = (replica.index, replica.log.count - 1)
            for sequence in replica.running:
                if sequence.decode_from >= 0:
                    self.tokens[sequence.request_id].append((*place, now))
                    self.decoded[sequence.request_id].append(place)
            decode(replica, iterations, first_s, now)

        def seen_emit(replica, sequence, now):
            self.tokens[sequence.request_id].append((replica.index, replica.log.count - 1, now))
            emit(replica, sequence, now)

        patch.setattr(Replica, "_decode", seen_decode)
        patch.setattr(Replica, "_emit", seen_emit)

    def gaps(self) -> np.ndarray:
        return np.concatenate([np.diff([time for *_, time in row]) for row in self.tokens.values()])

    def energy(self, result) -> np.ndarray:
        energy = np.zeros(len(result.request_columns["status"]))
        for request, places in self.decoded.items():
            for replica, i in places:
                table = result.tables[replica]
                share = (1 - table.prefill_share[i]) / table.columns["decoding"][i]
                energy[request] += table.energy_j[i] * share
        for log, table in zip(result.log.replicas, result.tables, strict=True):
            for i, request, tokens in zip(*log.chunk_table().values(), strict=True):
                part = tokens / table.columns["prefill_tokens"][int(i)]
                energy[int(request)] += table.energy_j[int(i)] * table.prefill_share[int(i)] * part
        return energy


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batching=st.sampled_from(["prefill-first", "chunked-prefill"]),
    replicas=st.integers(1, 2),
    swap=st.sampled_from([0, 10, 1000]),
)
def test_gaps_and_energy_are_those_of_every_token(seed, batching, replicas, swap):
    rng = np.random.default_rng(seed)
    requests = Lists.of(
        np.cumsum(rng.exponential(0.02, 30)), rng.integers(1, 80, 30), rng.integers(1, 60, 30)
    )
    engine = deployment(
        batching=batching, replicas=replicas, num_gpu_blocks=20, swap_blocks=swap, swap_s_per_block=1e-4
    )
    with pytest.MonkeyPatch.context() as patch:
        witness = Witness(patch)
        result = simulate(requests, engine, jump=False)
    gaps = [token_gaps(log, table) for log, table in zip(result.log.replicas, result.tables, strict=True)]
    counted = np.concatenate([np.repeat(values, weights.astype(int)) for values, weights in gaps])
    assert np.allclose(np.sort(counted), np.sort(witness.gaps()), rtol=1e-9, atol=1e-12)
    assert np.allclose(result.request_columns["energy_j"], witness.energy(result), rtol=1e-9)
    assert {request: len(row) for request, row in witness.tokens.items()} == dict(
        enumerate(requests.output_tokens.tolist())
    )
