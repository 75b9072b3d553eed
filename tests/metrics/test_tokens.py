"""Token gaps and energy from the log equal those of a witness that writes every token down as it comes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import priced, simulate
from support.observed import observe
from support.synthetic import Lists, deployment

from simslm.metrics.books import Forget
from simslm.metrics.quantiles import spread
from simslm.sim.replica import Replica


class Witness:
    """Notes ``(replica, iteration, time)`` of every token of a run that goes step by step."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.tokens: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        self.decoded: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.used: dict[tuple[int, int], int] = {}
        apply, emit = Replica._apply, Replica._emit

        def seen_apply(replica, plan, shape, start_s):
            place = (replica.index, replica.log.count)
            if plan.decode:
                for sequence in replica.batch.running:
                    if sequence.decode_from >= 0:
                        self.tokens[sequence.request_id].append((*place, replica.span.end_s))
                        self.decoded[sequence.request_id].append(place)
                self.used[place] = replica.pool.used + replica.pool.demand(replica.batch.decoded)
            apply(replica, plan, shape, start_s)

        def seen_emit(replica, sequence, now):
            self.tokens[sequence.request_id].append((replica.index, replica.log.count - 1, now))
            emit(replica, sequence, now)

        patch.setattr(Replica, "_apply", seen_apply)
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
        for _, window, table in result.windows:
            for i, request, tokens in zip(*window.chunks.values(), strict=True):
                part = tokens / table.columns["prefill_tokens"][int(i)]
                energy[int(request)] += table.energy_j[int(i)] * table.prefill_share[int(i)] * part
        return energy


@pytest.mark.slow
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
    counted = spread(witness.gaps())
    for name, value in result.summary["itl_s"].items():
        assert value == pytest.approx(counted[name], rel=1e-9, abs=1e-12)
    for (replica, i), used in witness.used.items():
        assert result.tables[replica].columns["kv_blocks_used"][i] == used
    assert np.allclose(result.request_columns["energy_j"], witness.energy(result), rtol=1e-9)
    assert {request: len(row) for request, row in witness.tokens.items()} == dict(
        enumerate(requests.output_tokens.tolist())
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.sampled_from([200, 1000, 5000]), swap=st.sampled_from([0, 1000])
)
def test_windows_add_up_to_the_whole(seed, size, swap):
    """A run whose iterations are handed out in many small windows keeps the same books."""
    rng = np.random.default_rng(seed)
    requests = Lists.of(
        np.cumsum(rng.exponential(0.01, 60)), rng.integers(1, 80, 60), rng.integers(1, 90, 60)
    )
    engine = deployment(replicas=2, num_gpu_blocks=24, swap_blocks=swap, swap_s_per_block=1e-4)
    whole = simulate(requests, engine)
    parts: dict[int, list] = defaultdict(list)

    class Columns(Forget):
        def take(self, replica, window, table):
            parts[replica].append(table.columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simslm.sim.log.replica.WINDOW_BYTES", size)
        windowed = observe(requests, engine, priced(engine), slo={"ttft_s": 1.0}, sink=Columns())
    assert max(map(len, parts.values())) > 1 or size > 1000
    for i, table in enumerate(whole.tables):
        for name, column in table.columns.items():
            assert np.array_equal(np.concatenate([part[name] for part in parts[i]]), column), name
    assert np.allclose(windowed.request_columns["energy_j"], whole.request_columns["energy_j"], rtol=1e-12)
    assert windowed.summary["itl_s"] == pytest.approx(whole.summary["itl_s"], rel=1e-12)
    for name, value in whole.summary["energy"].items():
        assert windowed.summary["energy"][name] == pytest.approx(value, rel=1e-12)
