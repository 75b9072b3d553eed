"""Prefill and decode replicas: what is handed over, what is shared, and what neither does to the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import same_logs, simulate
from support.scenarios import examples, scenarios
from support.synthetic import FixedDemand, LinearCost, Lists, deployment

from simslm.cost.sharing import Demand, sharing
from simslm.policies.partition import PhaseWindow, Split
from simslm.policies.registry import lookup

TICK = 2.0**-8


def two_phases(
    *,
    pool: str | None = "both",
    prefill: Any = None,
    decode: Any = None,
    transfer_s: float = 0.0,
    **options: Any,
) -> Any:
    """One prefill and one decode replica on one device, or, without a pool, on a device each."""
    served = deployment(sharing_name="sm-partition", **options)
    group = served.groups[0]
    parts = [
        replace(
            group,
            name=role,
            devices=(0 if pool else number,),
            engine=replace(group.engine, sm_fraction=part, transfer_s_per_block=transfer_s),
            role=role,
            decode_group=1 - number or None,
            kv_pool=pool,
        )
        for number, (role, part) in enumerate((("prefill", prefill), ("decode", decode)))
    ]
    return replace(served, groups=tuple(parts))


def crowd(seed: int, count: int = 60, longest: int = 120, rate: float = 100.0) -> Lists:
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, longest + 1, (2, count))
    return Lists.of(np.cumsum(rng.exponential(1 / rate, count)), prompts, outputs)


# ---- anything that may happen ------------------------------------------------------------------------------


@st.composite
def two_phase_scenarios(draw: st.DrawFn) -> tuple[Lists, Any]:
    batching = draw(st.sampled_from(["chunked-prefill", "prefill-first"]))
    return draw(scenarios(batching=batching, partition=draw(st.sampled_from(["static", "slo-aware"]))))


@settings(max_examples=examples(150), deadline=None)
@given(two_phase_scenarios())
def test_jumping_is_stepping_and_every_invariant_holds(scenario):
    """Pools and links, swapping and recomputing, late outputs, prefix caches, clients that leave: no block is lost."""
    requests, served = scenario
    same_logs(simulate(requests, served).log, simulate(requests, served, jump=False).log)


# ---- what does not depend on the other phase ---------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 0.7), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_prompts_delay_a_decode_iteration_by_what_the_split_says_and_no_more(seed, part, compute, memory):
    """An iteration is host time as it was, and device time at a speed between that of the phase by itself and that
    beside the other; with parts that fit together and bandwidth for both there is no difference at all."""
    served = two_phases(prefill=1 - part, decode=part)
    demand = FixedDemand(compute, memory)
    served = replace(served, groups=tuple(replace(group, demand=demand) for group in served.groups))
    table = simulate(crowd(seed), served).tables[1]
    way = sharing("sm-partition", 2)
    mine, other = Demand(compute, memory, part), Demand(compute, memory, 1 - part)
    alone, beside = way.speeds([mine])[0], way.speeds([mine, other])[0]
    cost = LinearCost()
    latency = cost.fixed + cost.per_seq * table.columns["decode_seqs"]
    latency = latency + cost.per_context * table.columns["decode_ctx_tokens"]
    least, most = (latency * (1 / 3 + 2 / 3 / speed) for speed in (alone, beside))
    took = table.columns["duration_s"]
    assert (took >= least * (1 - 1e-9)).all()
    assert (took <= most * (1 + 1e-9)).all()
    if compute == 0.05 and memory <= 0.5:
        assert alone == beside


def test_a_long_prompt_does_not_stop_the_decodes_beside_it():
    """A prompt of 2,000 tokens takes 45 ms; co-located and whole it stops the decodes, in a phase of its own not."""
    requests = Lists.of([0.0, 0.1], [10, 2000], [100, 2])
    roomy = {"demand": FixedDemand(0.1, 0.1)}
    served = two_phases(prefill=0.5, decode=0.5)
    served = replace(served, groups=tuple(replace(group, **roomy) for group in served.groups))
    apart = simulate(requests, served)
    together = simulate(requests, deployment(batching="prefill-first"))
    assert apart.summary["itl_s"]["max"] < 0.005 < 0.04 < together.summary["itl_s"]["max"]


# ---- handing over ------------------------------------------------------------------------------------------


def test_on_one_pool_decoding_begins_the_instant_the_first_token_is_out():
    """With a latency of one tick for whatever runs, a request of n tokens takes n ticks, as on one replica."""
    cost = LinearCost(TICK, 0.0, 0.0, 0.0, 0.0)
    free = {"compute": 0.01, "memory": 0.01}
    served = two_phases(cost=cost)
    served = replace(served, groups=tuple(replace(g, demand=FixedDemand(**free)) for g in served.groups))
    result = simulate(Lists.of([0.0], 40, 7), served)
    assert result.request_columns["finish_s"].tolist() == pytest.approx([7 * TICK])
    assert result.request_columns["replica"].tolist() == [1]
    assert [(move.source, move.target) for move in result.log.moves] == [(0, 1)]


def test_between_devices_blocks_take_their_time_on_the_link_one_sequence_after_the_other():
    """Two prompts of 3 blocks each, prefilled together: the second one's blocks wait for the first one's."""
    cost = LinearCost(TICK, 0.0, 0.0, 0.0, 0.0)
    served = two_phases(pool=None, cost=cost, transfer_s=TICK / 4)
    result = simulate(Lists.of([0.0, 0.0], 48, 2), served)
    first, second = result.tables[1].columns["start_s"][:2].tolist()
    assert (first, second) == (TICK * 1.75, TICK * 2.75)
    assert result.request_columns["finish_s"].tolist() == [TICK * 2.75, TICK * 3.75]


def test_one_output_token_is_never_handed_over():
    result = simulate(Lists.of([0.0, 0.0], 20, [1, 2]), two_phases())
    assert [move.request_id for move in result.log.moves] == [1]
    assert result.request_columns["replica"].tolist() == [0, 1]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_one_pool_holds_as_much_as_one_replica_and_both_phases_see_all_of_it(seed):
    """A crowd that preempts on one replica also does so in two phases on one pool of as many blocks; each table shows
    blocks of the pool, and never more than it has."""
    result = simulate(crowd(seed, rate=2000.0), two_phases(num_gpu_blocks=40, block_size=16))
    used = [table.columns["kv_blocks_used"] for table in result.tables]
    assert max(column.max() for column in used) <= 40
    assert result.request_columns["preemptions"].sum() > 0
    returned = [move for move in result.log.moves if move.source == 1]
    assert len(returned) == result.request_columns["preemptions"].sum()


def test_a_prompt_waits_for_blocks_that_the_other_phase_holds():
    """10 blocks: the first request grows to 8, so that the second, of 7, waits until the first is done."""
    requests = Lists.of([0.0, 0.01], [64, 100], [60, 5])
    result = simulate(requests, two_phases(num_gpu_blocks=10))
    columns = result.request_columns
    assert columns["first_scheduled_s"][1] == columns["finish_s"][0]
    assert not columns["preemptions"].any()


# ---- the split ---------------------------------------------------------------------------------------------


def seen(split: tuple[float, float], ttft_s: float, tpot_s: float) -> Any:
    return PhaseWindow(Split(*split), (ttft_s / 2,) * 10, (ttft_s / 2,) * 10, (tpot_s,) * 10, 1.0, 0.1)


def slo_aware(**options: Any) -> Any:
    entry = lookup("partition", "slo-aware")
    return entry.cls(entry.options(**options))


@pytest.mark.parametrize(
    ("split", "ttft_s", "tpot_s", "expected"),
    [
        ((0.8, 0.9), 0.5, 0.05, (0.8, 0.9)),
        ((0.8, 0.9), 2.0, 0.2, (1.0, 1.0)),
        ((0.8, 0.9), 0.5, 0.2, (0.8, 0.96)),
        ((0.8, 0.9), 0.5, 0.092, (0.8, 0.92)),
        ((0.9, 1.0), 0.5, 0.2, (0.84, 1.0)),
        ((0.8, 1.0), 0.5, 0.2, (0.8, 1.0)),
        ((0.8, 0.9), 2.0, 0.05, (0.86, 0.9)),
        ((0.98, 0.9), 2.0, 0.05, (1.0, 0.9)),
        ((1.0, 0.9), 2.0, 0.05, (1.0, 0.84)),
    ],
)
def test_the_phase_that_misses_its_bound_gets_more(split, ttft_s, tpot_s, expected):
    """Both met, both missed, TPOT alone (far and just), TPOT with the device whole already, TTFT likewise."""
    assert slo_aware().split(seen(split, ttft_s, tpot_s)) == expected


def test_the_split_moves_during_a_run_and_the_next_iterations_go_by_it():
    """Decodes by arithmetic, and of 0.1 of the device: TPOT is missed until the whole device is theirs."""
    policy = lookup("partition", "slo-aware")
    served = two_phases(prefill=0.1, decode=0.1)
    served = replace(
        served,
        groups=tuple(replace(group, demand=FixedDemand(1.0, 0.1)) for group in served.groups),
        partition=lambda: policy.cls(policy.options(window=5, step=0.1)),
        ttft_slo_s=100.0,
        tpot_slo_s=4e-3,
    )
    result = simulate(crowd(0, rate=5.0), served)
    splits = result.log.splits[0]
    assert splits[0] == (0.0, (0.1, 0.1))
    parts = [split.decode for _, split in splits]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    table = result.tables[1]
    slowest = table.columns["duration_s"][table.columns["start_s"] < splits[1][0]].min()
    fastest = table.columns["duration_s"][table.columns["start_s"] > splits[-1][0]].max()
    assert slowest > 3 * fastest
