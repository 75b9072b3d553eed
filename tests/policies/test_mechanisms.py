"""What each policy is for, seen in the logs of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.scenarios import Choice
from support.synthetic import Lists, deployment
from support.views import SeenLoad, SeenRequest

from simslm.policies.registry import lookup, registered
from simslm.sim.log import FAILED, FINISHED


def crowd(seed: int, count: int = 40, longest: int = 60, rate: float = 300.0, **more: Any) -> Lists:
    """Random requests, many at once."""
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, longest + 1, (2, count))
    return Lists.of(np.cumsum(rng.exponential(1 / rate, count)), prompts, outputs, **more)


def batches(result: Any) -> list[tuple[int, list[int]]]:
    """``(iteration, requests)`` of every iteration of the first replica that prefilled."""
    chunks = np.concatenate(
        [np.column_stack([w.chunks["iteration"], w.chunks["request_id"]]) for _, w, _ in result.windows]
    )
    return [(int(i), [int(r) for j, r in chunks if j == i]) for i in np.unique(chunks[:, 0])]


# ---- batching ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_static_batches_never_mix_and_are_held_padded_to_their_end(seed, most):
    requests = crowd(seed)
    result = simulate(requests, deployment(batching="static", max_num_seqs=most, max_num_batched_tokens=200))
    columns, finish = result.tables[0].columns, result.request_columns["finish_s"]
    began = [i for i, _ in batches(result)] + [len(result.tables[0])]
    earlier: list[int] = []
    for (iteration, members), following in zip(batches(result), began[1:], strict=True):
        assert not earlier or finish[earlier].max() <= columns["start_s"][iteration]
        longest = requests.prompt_tokens[members].max()
        assert columns["decode_seqs"][iteration] == 0
        assert columns["prefill_tokens"][iteration] == len(members) * longest <= 200
        assert (columns["decode_seqs"][iteration + 1 : following] == len(members)).all()
        assert following - iteration == requests.output_tokens[members].max()
        earlier = members


def static_pair(returns: str, **more: Any) -> Any:
    """Two requests of one batch, of 2 and 9 tokens, and one that comes after them."""
    made = Choice("batching", "static", {"returns": returns}).make()
    served = deployment(batching="static", max_num_seqs=2)
    group = served.groups[0]
    served = replace(
        served, groups=(replace(group, policies=lambda: replace(group.policies(), batching=made)),)
    )
    return simulate(Lists.of([0.0, 0.0, 0.0], 10, [2, 9, 4], **more), served)


def gaps(result: Any) -> int:
    """How many gaps between tokens were counted."""
    return int(result.token_gaps.last[-1]) + 1


def test_a_static_batch_returns_when_all_of_it_is_done():
    """The whole answer goes out at the end of the batch: TTFT is E2E, and the tokens of an answer come at once."""
    result = static_pair("batch")
    columns, ends = result.request_columns, result.tables[0].end_s
    assert columns["finish_s"].tolist() == [ends[8], ends[8], ends[-1]]
    assert columns["first_token_s"].tolist() == columns["finish_s"].tolist()
    assert columns["tpot_s"].tolist() == [0.0, 0.0, 0.0]
    assert result.summary["itl_s"]["max"] == 0.0
    assert gaps(result) == 1 + 8 + 3


def test_a_static_batch_may_return_each_request_at_its_end():
    result = static_pair("request")
    columns, ends = result.request_columns, result.tables[0].end_s
    assert columns["finish_s"].tolist() == [ends[1], ends[8], ends[-1]]
    assert columns["first_token_s"].tolist() == [ends[0], ends[0], ends[9]]
    assert result.summary["itl_s"]["p50"] > 0
    batched = static_pair("batch")
    assert result.summary["makespan_s"] == batched.summary["makespan_s"]
    assert result.summary["energy"] == batched.summary["energy"]


def test_a_client_that_left_before_its_static_batch_was_done_has_no_answer():
    """Its two tokens were computed long before; they would have gone out with the batch."""
    result = static_pair("batch", patience_s=np.array([0.02, np.inf, np.inf]))
    columns = result.request_columns
    assert columns["status"].tolist() == [FAILED, FINISHED, FINISHED]
    assert np.isnan(columns["first_token_s"][0])
    assert gaps(result) == 8 + 3


def test_static_batches_outlive_clients_that_leave():
    """The last client to wait leaves: those that finished before it are freed, and the next batch is admitted."""
    requests = Lists.of([0.0, 0.0, 0.0], 10, [2, 50, 5], patience_s=np.array([np.inf, 0.05, np.inf]))
    result = simulate(requests, deployment(batching="static", max_num_seqs=2))
    assert [members for _, members in batches(result)] == [[0, 1], [2]]
    assert result.tables[0].columns["decode_seqs"][-4:].tolist() == [1, 1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(24, 60))
def test_orca_never_preempts_and_lets_prompts_join_decodes(seed, blocks):
    requests = crowd(seed)
    requests.max_tokens = requests.output_tokens + 5
    result = simulate(requests, deployment(batching="orca", num_gpu_blocks=blocks))
    assert not result.request_columns["preemptions"].any()
    columns = result.tables[0].columns
    assert ((columns["decode_seqs"] > 0) & (columns["prefill_seqs"] > 0)).any()
    for table in result.tables:
        assert (table.columns["kv_blocks_used"] <= blocks).all()


def test_orca_reserves_what_chunked_prefill_takes_as_it_goes():
    requests = Lists.of(np.zeros(8), 16, 4)
    requests.max_tokens[:] = 160
    peak = [
        simulate(requests, deployment(batching=name, num_gpu_blocks=44)).tables[0].columns["running"].max()
        for name in ("orca", "chunked-prefill")
    ]
    assert peak == [4, 8]


def stalls(result: Any) -> int:
    """Iterations that decoding sequences had to wait out, summed over all requests."""
    columns, ends = result.request_columns, result.tables[0].end_s
    during = np.searchsorted(ends, columns["finish_s"]) - np.searchsorted(ends, columns["first_token_s"])
    return int((during - (columns["output_tokens"] - 1)).sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([16, 40, 200]))
def test_chunked_prefill_keeps_to_its_budget_and_every_decode_in_every_iteration(seed, budget):
    requests = crowd(seed, longest=150)
    result = simulate(requests, deployment(max_num_seqs=16, max_num_batched_tokens=budget))
    columns = result.tables[0].columns
    assert (columns["decode_seqs"] + columns["prefill_tokens"] <= budget).all()
    assert stalls(result) == 0


def test_prefill_first_makes_decodes_wait_where_chunked_prefill_does_not():
    requests = crowd(1, longest=150)
    assert stalls(simulate(requests, deployment(batching="prefill-first"))) > 50
    assert stalls(simulate(requests, deployment(batching="chunked-prefill"))) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_with_swap_no_token_is_prefilled_twice(seed):
    requests = crowd(seed)
    options = {"batching": "prefill-first", "num_gpu_blocks": 30, "block_size": 4, "max_num_seqs": 12}
    swapped = simulate(requests, deployment(**options, swap_blocks=10_000, swap_s_per_block=1e-5))
    served = swapped.request_columns["status"] == 0
    done = int(requests.prompt_tokens[served].sum())
    assert swapped.tables[0].columns["prefill_tokens"].sum() == done
    recomputed = simulate(requests, deployment(**options))
    again = recomputed.tables[0].columns["prefill_tokens"].sum() - done
    assert (again > 0) == bool(recomputed.request_columns["preemptions"].any())


def test_some_of_those_crowds_are_swapped():
    options = {"batching": "prefill-first", "num_gpu_blocks": 30, "block_size": 4, "max_num_seqs": 12}
    result = simulate(crowd(0), deployment(**options, swap_blocks=10_000))
    assert result.request_columns["preemptions"].sum() > 5


# ---- queue orders ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([entry.name for entry in registered("batching")]),
)
def test_nobody_is_scheduled_before_somebody_who_waits_with_a_lower_number(seed, batching):
    rng = np.random.default_rng(seed)
    requests = crowd(seed, priority=rng.integers(0, 3, 40))
    setting = deployment(batching=batching, queueing="priority", max_num_seqs=4, replicas=2)
    columns = simulate(requests, setting).request_columns
    assert requests.priority is not None
    for mine in (columns["replica"] == 0, columns["replica"] == 1):
        arrival, scheduled = columns["arrival_s"][mine], columns["first_scheduled_s"][mine]
        number = requests.priority[mine]
        ahead = (number[:, None] < number[None, :]) & (arrival[:, None] < scheduled[None, :])
        assert (scheduled[:, None] <= scheduled[None, :])[ahead].all()


def test_the_shortest_prompt_goes_first():
    requests = Lists.of([0.0, 0.001, 0.002, 0.003], [50, 40, 10, 20], 5)
    columns = simulate(requests, deployment(queueing="shortest-prompt", max_num_seqs=1)).request_columns
    assert np.argsort(columns["first_scheduled_s"]).tolist() == [0, 2, 3, 1]


# ---- routing -----------------------------------------------------------------------------------------------


def router(name: str, **options: Any) -> Any:
    entry = lookup("routing", name)
    resources = {"stream": np.random.default_rng(1)} if entry.needs_stream else {}
    return entry.cls(entry.options(**options), **resources)


def request(units: int = 0, session: int = -1) -> SeenRequest:
    return SeenRequest(0, 0.0, 100, 10, 0, session, tuple(range(units)))


def loads(*outstanding: int, cached: tuple[int, ...] = ()) -> list[SeenLoad]:
    return [
        SeenLoad(load, load // 2, 0.0, cached[i] if cached else 0, index=i)
        for i, load in enumerate(outstanding)
    ]


def test_the_shortest_queue_is_that_of_those_who_wait():
    seen = [SeenLoad(9, 1, 0.0), SeenLoad(30, 0, 0.0), SeenLoad(20, 0, 0.0)]
    assert router("join-shortest-queue").choose(request(), seen) == 2
    assert router("least-outstanding").choose(request(), seen) == 0


def test_random_routing_is_uniform():
    """Chi-square of 30,000 choices among 5: below its 99.9th percentile for 4 degrees of freedom."""
    chosen = router("random")
    counts = np.bincount([chosen.choose(request(), loads(0, 9, 0, 0, 0)) for _ in range(30_000)])
    assert ((counts - 6000) ** 2 / 6000).sum() < 18.5


def test_of_two_choices_the_worst_replica_is_never_taken_and_the_best_most():
    """Two different ones of n, the less loaded: the k-th best is taken with probability 2 (n - k) / (n (n - 1))."""
    chosen = router("power-of-two")
    counts = np.bincount(
        [chosen.choose(request(), loads(40, 10, 30, 20)) for _ in range(12_000)], minlength=4
    )
    expected = {1: 6 / 12, 3: 4 / 12, 2: 2 / 12, 0: 0.0}
    for index, share in expected.items():
        assert counts[index] == pytest.approx(12_000 * share, abs=4 * np.sqrt(3000))
    assert counts[0] == 0


def test_prefix_affinity_follows_the_cache_within_bounds():
    assert router("prefix-affinity").choose(request(10), loads(3, 5, 1, cached=(4, 9, 0))) == 1
    assert router("prefix-affinity").choose(request(10), loads(3, 99, 1, cached=(4, 9, 0))) == 0
    assert router("prefix-affinity").choose(request(10), loads(3, 5, 1, cached=(2, 2, 0))) == 2
    assert (
        router("prefix-affinity", cache_threshold=0.0).choose(request(10), loads(3, 5, 1, cached=(2, 2, 0)))
        == 0
    )
    assert router("prefix-affinity").choose(request(0), loads(3, 5, 1, cached=(4, 9, 0))) == 2
    tight = router("prefix-affinity", balance_abs_threshold=1, balance_rel_threshold=2.0)
    assert tight.choose(request(10), loads(3, 9, 4, cached=(0, 9, 0))) == 0
    assert tight.choose(request(10), loads(5, 9, 4, cached=(0, 9, 0))) == 2
    assert tight.choose(request(10), loads(5, 10, 5, cached=(0, 9, 0))) == 1


def test_a_session_stays_where_it_began():
    affinity = router("session-affinity")
    assert affinity.choose(request(session=4), loads(5, 0, 3)) == 1
    assert affinity.choose(request(session=7), loads(0, 9, 3)) == 0
    assert affinity.choose(request(session=4), loads(0, 9, 3)) == 1
    assert affinity.choose(request(), loads(1, 9, 0)) == 2
    assert affinity.choose(request(), loads(0, 9, 3)) == 0


def test_prefix_affinity_hits_more_than_round_robin():
    """Six documents, two caches with room for three or four each: sent where they are cached, more of them stay."""
    rng = np.random.default_rng(5)
    documents = rng.integers(0, 6, 300)
    requests = Lists.of(np.cumsum(rng.exponential(0.2, 300)), 165, 4)
    requests.unit_tokens = 16
    requests.units = [
        (*(100 * d + j for j in range(10)), 10**6 + i) for i, d in enumerate(documents.tolist())
    ]
    hits = {}
    for name in ("round-robin", "prefix-affinity"):
        setting = deployment(
            router=name, replicas=2, prefix_caching=True, num_gpu_blocks=45, max_num_seqs=1, watermark=0.0
        )
        hits[name] = simulate(requests, setting).summary["kv"]["cached_prompt_share"]
    assert hits["prefix-affinity"] > 1.2 * hits["round-robin"]


# ---- determinism -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "power-of-two"])
def test_a_router_draws_from_its_own_stream_only(name):
    requests, setting = crowd(3), deployment(router=name, replicas=3)
    state = np.random.get_state()[1].copy()  # type: ignore[index]
    first = simulate(requests, setting)
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]
    second = simulate(requests, setting)
    assert first.summary == second.summary
    assert len(set(first.request_columns["replica"].tolist())) == 3
