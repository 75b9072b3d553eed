"""What programs find in the prefix cache, against a computation of the test's own on the tokens themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.invariants import simulate
from support.programs import calls, programs
from support.scenarios import examples
from support.synthetic import LinearCost, deployment

from simslm.scenario.classes import Traffic
from simslm.sim.log import FINISHED
from simslm.workload import requests_of
from simslm.workload.calls import Call, Text
from simslm.workload.requests import RequestArrays

BLOCK = 16


def written_out(written: Sequence[Sequence[Call]]) -> list[tuple[list[int], list[int]]]:
    """Every request's prompt and output as tokens; a text of a name is always the same, all else is new."""
    fresh, texts = count(), {}

    def tokens(number: int) -> list[int]:
        return [next(fresh) for _ in range(number)]

    def named(text: Text | None) -> list[int]:
        return [] if text is None else texts.setdefault((text.name, text.tokens), tokens(text.tokens))

    found = []
    for program in written:
        said: list[tuple[list[int], list[int], list[int]]] = []
        for call in program:
            prompt = []
            if call.extends is not None:
                before, _, answer = said[call.extends]
                prompt = before + answer
            prompt = prompt + named(call.text) + named(call.shared)
            for read in call.reads:
                prompt = prompt + said[read][2]
            prompt = prompt + tokens(call.own)
            said.append((prompt, tokens(call.reasoning), tokens(call.output)))
        found += [(prompt, reasoning + answer) for prompt, reasoning, answer in said]
    return found


def prefixes(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """What stands up to the end of each full block."""
    return [tuple(tokens[:end]) for end in range(BLOCK, len(tokens) + 1, BLOCK)]


def cached(tokens: Sequence[int], known) -> int:
    """Tokens in the leading blocks that are known, never all of them: the last has to be computed."""
    hits = 0
    for prefix in prefixes(tokens):
        if prefix not in known:
            break
        hits += BLOCK
    return min(hits, len(tokens) - 1)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(calls(), min_size=1, max_size=4), st.sampled_from([1, 4, 16]))
def test_one_at_a_time_in_an_infinite_cache(written, scale):
    """Whatever graph: the hits are the full blocks that any earlier prompt and output had, but for its last token."""
    written = [[_longer(call, scale) for call in program] for program in written]
    requests = programs(written, 0.0)
    engine = deployment(max_num_seqs=1, num_gpu_blocks=10**6, prefix_caching=True, max_model_len=10**6)
    columns = simulate(requests, engine).request_columns
    said = written_out(written)
    assert [len(prompt) for prompt, _ in said] == requests.prompt_tokens.tolist()
    known: set[tuple[int, ...]] = set()
    for row in np.argsort(columns["first_scheduled_s"], kind="stable").tolist():
        prompt, output = said[row]
        assert columns["cached_prompt_tokens"][row] == cached(prompt, known), row
        known.update(prefixes((prompt + output)[:-1]))


def _longer(call: Call, scale: int) -> Call:
    return Call(
        call.own * scale,
        call.output * scale,
        call.text,
        call.extends,
        call.shared,
        call.reads,
        call.after,
        call.delay_s,
        call.reasoning,
    )


def conversations(**keys) -> Traffic:
    programs = {
        "kind": "conversation",
        "turns": {"dist": "uniform", "low": 1, "high": 8},
        "think_time_s": {"dist": "exponential", "mean": 2.0},
    }
    workload = {
        "num_requests": 60,
        "arrivals": {"process": "poisson", "rate_rps": 2.0},
        "prompt_tokens": {"dist": "lognormal", "mean": 60, "p95": 180},
        "output_tokens": {"dist": "lognormal", "mean": 90, "p95": 250},
        "programs": programs | keys,
    }
    return Traffic.model_validate(workload)


@pytest.mark.slow
@pytest.mark.parametrize("num_gpu_blocks", [150, 400, 10**6])
@pytest.mark.parametrize("system", [0, 100])
def test_conversations_in_a_cache_of_any_size(num_gpu_blocks, system):
    """One request at a time: what is found is what an LRU cache of the blocks themselves holds."""
    requests = requests_of(conversations(system_prompt_tokens=system), 3, 4096, Path())
    engine = deployment(
        max_num_seqs=1, num_gpu_blocks=num_gpu_blocks, watermark=0.0, prefix_caching=True, cost=LinearCost()
    )
    columns = simulate(requests, engine).request_columns
    said = spoken(requests.programs, requests, system)
    cache: OrderedDict[tuple[int, ...], None] = OrderedDict()
    arrived = {request: row for row, request in enumerate(columns["request_id"].tolist())}
    order = np.argsort(columns["first_scheduled_s"], kind="stable").tolist()
    for row in [row for row in order if columns["status"][row] == FINISHED]:
        prompt, output = said[int(columns["request_id"][row])]
        assert columns["cached_prompt_tokens"][row] == cached(prompt, cache)
        mine = prefixes((prompt + output)[:-1])
        for prefix in mine:
            cache.pop(prefix, None)
        most = -(-(len(prompt) + len(output) - 1) // BLOCK)
        while len(cache) > num_gpu_blocks - most:
            cache.popitem(last=False)
        for prefix in reversed(mine):
            cache[prefix] = None
    assert len(arrived) > 200
    share = columns["cached_prompt_tokens"].sum() / columns["prompt_tokens"].sum()
    assert (share > 0.7) == (num_gpu_blocks == 10**6)


def goes_on(requests: RequestArrays) -> np.ndarray:
    """Which requests are not the first of their conversation."""
    assert requests.programs is not None
    return np.append(False, np.diff(requests.programs.program_of) == 0)


def spoken(graph, requests, system: int) -> dict[int, tuple[list[int], list[int]]]:
    """The tokens of conversations, from their lengths alone: each prompt goes on from the one before."""
    fresh, begun = count(), list(range(-system, 0))
    said: dict[int, tuple[list[int], list[int]]] = {}
    for request, (prompt, output) in enumerate(
        zip(requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), strict=True)
    ):
        same = request and graph.program_of[request - 1] == graph.program_of[request]
        before = said[request - 1][0] + said[request - 1][1] if same else begun
        assert prompt > len(before)
        own = [next(fresh) for _ in range(prompt - len(before))]
        said[request] = before + own, [next(fresh) for _ in range(output)]
    return said


def test_the_ratio_of_an_undisturbed_conversation_follows_from_its_lengths():
    """Turn k finds the full blocks of all before it but for the last token, which was never computed."""
    requests = requests_of(conversations(), 5, 10**6, Path())
    engine = deployment(num_gpu_blocks=10**6, prefix_caching=True, max_model_len=10**6)
    columns = simulate(requests, engine).request_columns
    said = requests.prompt_tokens + requests.output_tokens
    follows = goes_on(requests)
    expected = np.where(follows, (np.roll(said, 1) - 1) // BLOCK * BLOCK, 0)
    assert columns["cached_prompt_tokens"].tolist() == expected.tolist()


def test_reasoning_is_left_out_and_what_was_answered_is_computed_again():
    """The next prompt agrees with the one before up to its end; after it came reasoning, which is not in there."""
    spec = {"reasoning_tokens": 64}
    requests = requests_of(conversations(**spec), 5, 10**6, Path())
    plain = requests_of(conversations(), 5, 10**6, Path())
    assert (requests.output_tokens == plain.output_tokens + 64).all()
    assert (requests.prompt_tokens == plain.prompt_tokens).all()
    engine = deployment(num_gpu_blocks=10**6, prefix_caching=True, max_model_len=10**6)
    columns = simulate(requests, engine).request_columns
    follows = goes_on(requests)
    expected = np.where(follows, np.roll(requests.prompt_tokens, 1) // BLOCK * BLOCK, 0)
    assert columns["cached_prompt_tokens"].tolist() == expected.tolist()


def test_without_a_prefix_cache_every_turn_is_computed_whole():
    requests = requests_of(conversations(), 5, 4096, Path())
    columns = simulate(requests, deployment()).request_columns
    assert not columns["cached_prompt_tokens"].any()


def test_affine_routers_keep_a_conversation_where_its_blocks_are():
    """Of four replicas, the one of the session has all that there is to find; the others have older turns at best."""
    requests = requests_of(conversations(), 7, 10**6, Path())
    follows = goes_on(requests)
    said = np.roll(requests.prompt_tokens + requests.output_tokens, 1)
    all_there_is = np.where(follows, (said - 1) // BLOCK * BLOCK, 0)
    found = {}
    for router in ("session-affinity", "prefix-affinity", "round-robin"):
        engine = deployment(
            replicas=4, router=router, num_gpu_blocks=10**5, prefix_caching=True, max_model_len=10**6
        )
        found[router] = simulate(requests, engine).request_columns
    homes = found["session-affinity"]["replica"]
    assert (homes[1:] == homes[:-1])[follows[1:]].all()
    assert len(set(homes.tolist())) == 4
    assert found["session-affinity"]["cached_prompt_tokens"].tolist() == all_there_is.tolist()
    hits = {router: columns["cached_prompt_tokens"].sum() for router, columns in found.items()}
    assert hits["prefix-affinity"] > 0.95 * all_there_is.sum()
    assert hits["round-robin"] < 0.6 * all_there_is.sum()
