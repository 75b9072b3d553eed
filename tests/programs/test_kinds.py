"""Each kind of program is what it says: who waits for whom, and what every prompt is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.json_schema import faults
from pydantic import ValidationError

from simslm.errors import ScenarioError
from simslm.scenario.classes import Traffic
from simslm.workload import RequestArrays, requests_of

PROMPTS, OUTPUTS = {"dist": "uniform", "low": 20, "high": 90}, {"dist": "uniform", "low": 10, "high": 70}


def made(kind: str, count: int = 40, seed: int = 0, **keys: Any) -> RequestArrays:
    """The requests of a workload of programs of one kind; keys of its own go to the program."""
    whole = {name: keys.pop(name) for name in ("max_tokens", "priorities", "timeout_s") if name in keys}
    lengths = {} if kind == "graphs" else {"prompt_tokens": PROMPTS, "output_tokens": OUTPUTS}
    workload = {
        "num_requests": count,
        "arrivals": {"process": "poisson", "rate_rps": 3.0},
        **lengths,
        **whole,
        "programs": {"kind": kind, **keys},
    }
    return requests_of(Traffic.model_validate(workload), seed, 4096, Path(keys.get("base", ".")))


def parents(requests: RequestArrays) -> list[list[int]]:
    """The requests that each depends on."""
    graph = requests.programs
    assert graph is not None
    begins = [0, *graph.parent_ends[:-1].tolist()]
    return [
        graph.parents[begin:end].tolist()
        for begin, end in zip(begins, graph.parent_ends.tolist(), strict=True)
    ]


def of_programs(requests: RequestArrays) -> list[np.ndarray]:
    """The requests of each program."""
    assert requests.programs is not None
    numbers = requests.programs.program_of
    assert (np.diff(numbers) >= 0).all()
    assert np.unique(numbers).tolist() == list(range(len(requests.programs.start_s)))
    return np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers)) + 1)


def test_a_conversation_goes_on_from_all_that_was_said():
    """The n-th prompt is the sum of all prompts and outputs before and a new one, after a pause."""
    turns = {"dist": "uniform", "low": 1, "high": 6}
    think_s = {"dist": "exponential", "mean": 4.0}
    requests = made("conversation", turns=turns, think_time_s=think_s, system_prompt_tokens=33)
    graph, above = requests.programs, parents(requests)
    assert graph is not None
    sizes = set()
    for mine in of_programs(requests):
        sizes.add(len(mine))
        said = 33
        for turn, request in enumerate(mine.tolist()):
            assert above[request] == ([request - 1] if turn else [])
            assert (graph.delay_s[request] > 0) == (turn > 0)
            own = requests.prompt_tokens[request] - said
            assert 20 <= own <= 90
            said = requests.prompt_tokens[request] + requests.output_tokens[request]
            assert graph.stage[request] == turn
    assert sizes == {1, 2, 3, 4, 5, 6}
    pauses = graph.delay_s[graph.delay_s > 0]
    assert abs(pauses.mean() - 4) < 4 * 4 / np.sqrt(len(pauses))
    assert requests.session_id is not None
    assert (requests.session_id == graph.program_of).all()


def test_an_agent_reads_what_its_tools_return():
    requests = made("agent", calls=4, tool_time_s=1.5, tool_tokens={"dist": "fixed", "value": 200})
    graph = requests.programs
    assert graph is not None
    prompts, outputs = (each.reshape(-1, 4) for each in (requests.prompt_tokens, requests.output_tokens))
    assert ((prompts[:, 0] >= 20) & (prompts[:, 0] <= 90)).all()
    assert (prompts[:, 1:] == prompts[:, :-1] + outputs[:, :-1] + 200).all()
    assert graph.delay_s.reshape(-1, 4).tolist() == [[0.0, 1.5, 1.5, 1.5]] * 40


def test_a_reduce_reads_the_outputs_of_all_maps():
    requests = made(
        "map-reduce",
        width={"dist": "uniform", "low": 1, "high": 5},
        reduce_prompt_tokens=7,
        reduce_output_tokens=3,
        system_prompt_tokens=11,
    )
    above = parents(requests)
    for mine in of_programs(requests):
        *maps, last = mine.tolist()
        assert above[last] == maps
        assert not any(above[each] for each in maps)
        assert requests.prompt_tokens[last] == 11 + 7 + requests.output_tokens[maps].sum()
        assert requests.output_tokens[last] == 3


@pytest.mark.parametrize("judged", [None, 4])
def test_the_best_of_some_answers_to_one_prompt(judged):
    requests = made("best-of", n=3, judge_output_tokens=judged)
    above = parents(requests)
    for mine in of_programs(requests):
        asked = mine[:3].tolist()
        assert len(set(requests.prompt_tokens[asked].tolist())) == 1
        assert requests.units is not None
        assert len({tuple(requests.units[each]) for each in asked}) == 1
        if judged is None:
            assert len(mine) == 3
            continue
        assert above[mine[3]] == asked
        said = requests.output_tokens[asked].sum()
        assert requests.prompt_tokens[mine[3]] == requests.prompt_tokens[asked[0]] + said
        assert requests.output_tokens[mine[3]] == 4


def test_a_tree_branches_from_every_output():
    requests = made("tree", depth=2, branching=3)
    above = parents(requests)
    for mine in of_programs(requests):
        first = int(mine[0])
        assert len(mine) == 13
        expected = [[], *([first] for _ in range(3)), *([first + 1 + i // 3] for i in range(9))]
        assert [above[each] for each in mine.tolist()] == expected
        assert requests.programs is not None
        assert requests.programs.stage[mine].tolist() == [0, *[1] * 3, *[2] * 9]
        for child in mine[1:].tolist():
            (parent,) = above[child]
            own = (
                requests.prompt_tokens[child]
                - requests.prompt_tokens[parent]
                - requests.output_tokens[parent]
            )
            assert 20 <= own <= 90


def test_max_tokens_ends_reasoning_and_answers_and_what_is_read_of_them():
    """Of at most 40 tokens, 30 are reasoning: the answer that the next turn contains has 10, or what was drawn."""
    requests = made("conversation", turns=2, think_time_s=0, reasoning_tokens=30, max_tokens=40)
    prompts, outputs = (each.reshape(-1, 2) for each in (requests.prompt_tokens, requests.output_tokens))
    plain = made("conversation", turns=2, think_time_s=0)
    drawn = plain.output_tokens.reshape(-1, 2)
    assert (outputs == 30 + np.minimum(drawn, 10)).all()
    own = plain.prompt_tokens.reshape(-1, 2)[:, 1] - plain.prompt_tokens.reshape(-1, 2)[:, 0] - drawn[:, 0]
    assert (prompts[:, 1] == prompts[:, 0] + np.minimum(drawn[:, 0], 10) + own).all()
    assert (requests.max_tokens == 40).all()


def test_reasoning_beyond_max_tokens_leaves_no_answer():
    requests = made("conversation", turns=2, think_time_s=0, reasoning_tokens=90, max_tokens=40)
    assert (requests.output_tokens == 40).all()


def test_a_shorter_workload_is_the_beginning_of_a_longer_one():
    turns, think_s = {"dist": "uniform", "low": 1, "high": 6}, {"dist": "exponential", "mean": 1}
    short, long = (made("conversation", count, turns=turns, think_time_s=think_s) for count in (10, 40))
    count = len(short)
    for name in ("prompt_tokens", "output_tokens", "arrival_s"):
        assert (getattr(short, name) == getattr(long, name)[:count]).all()
    assert short.programs is not None
    assert long.programs is not None
    assert (short.programs.delay_s == long.programs.delay_s[:count]).all()


def test_what_one_key_draws_does_not_move_the_others():
    one = made("conversation", turns=3, think_time_s=1.0)
    other = made("conversation", turns=3, think_time_s={"dist": "uniform", "low": 1, "high": 9})
    assert (one.prompt_tokens == other.prompt_tokens).all()
    assert (one.arrival_s == other.arrival_s).all()
    reseeded = made("conversation", seed=1, turns=3, think_time_s=1.0)
    assert (reseeded.prompt_tokens != one.prompt_tokens).any()


@pytest.mark.parametrize(
    ("times", "mean", "deviation"),
    [
        ({"dist": "uniform", "low": 2.0, "high": 6.0}, 4.0, 4 / np.sqrt(12)),
        ({"dist": "exponential", "mean": 3.0}, 3.0, 3.0),
        (
            {"dist": "lognormal", "median": 2.0, "sigma": 0.5},
            2 * np.exp(0.125),
            2 * np.sqrt(np.exp(0.5) - np.exp(0.25)),
        ),
    ],
)
def test_pauses_follow_their_distribution(times, mean, deviation):
    requests = made("conversation", 4000, turns=2, think_time_s=times)
    assert requests.programs is not None
    pauses_s = requests.programs.delay_s[1::2]
    assert abs(pauses_s.mean() - mean) < 4 * deviation / np.sqrt(4000)
    assert abs(pauses_s.std() - deviation) < 0.1 * deviation


def test_priorities_are_those_of_programs_and_patience_that_of_requests():
    priorities = ({"value": 0, "share": 1.0}, {"value": 5, "share": 1.0})
    requests = made("conversation", turns=3, think_time_s=0, priorities=priorities, timeout_s=9.0)
    assert requests.priority is not None
    assert requests.patience_s is not None
    by_program = requests.priority.reshape(-1, 3)
    assert (by_program == by_program[:, :1]).all()
    assert set(by_program[:, 0].tolist()) == {0, 5}
    assert (requests.patience_s == 9.0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"programs": {"kind": "tree", "depth": 40, "branching": 4}}, "a program has at most 100,000"),
        ({"prefixes": {"count": 1, "tokens": 64}}, "prefixes cannot stand beside programs"),
        ({"output_tokens": None}, "output_tokens missing"),
        ({"arrivals": None}, "arrivals missing"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    workload = {
        "num_requests": 3,
        "arrivals": {"process": "poisson", "rate_rps": 3.0},
        "prompt_tokens": PROMPTS,
        "output_tokens": OUTPUTS,
        "programs": {"kind": "conversation", "turns": 2, "think_time_s": 1},
    }
    with pytest.raises(ValidationError, match=message):
        Traffic.model_validate(workload | change)


def test_programs_of_a_file_state_their_own_lengths():
    workload = {
        "num_requests": 3,
        "arrivals": {"process": "poisson", "rate_rps": 3.0},
        "prompt_tokens": PROMPTS,
        "programs": {"kind": "graphs", "file": "x.jsonl"},
    }
    with pytest.raises(ValidationError, match="prompt_tokens cannot stand beside programs of kind graphs"):
        Traffic.model_validate(workload)


def test_a_program_that_would_be_too_long_is_refused():
    endless = {"dist": "lognormal", "mu": 15.0, "sigma": 1.0}
    with pytest.raises(ScenarioError, match=r"workload\.programs\.turns: a program would have"):
        made("conversation", turns=endless, think_time_s=1)


def test_times_beyond_what_a_clock_can_tell_are_refused():
    with pytest.raises(ScenarioError, match="to which time is kept"):
        made("conversation", turns=1000, think_time_s=4e9)


def test_a_number_stands_for_a_distribution_in_the_schema_too():
    schema = Traffic.model_json_schema()
    programs = {"kind": "agent", "calls": 4, "tool_time_s": 1.5, "tool_tokens": {"dist": "fixed", "value": 9}}
    assert not faults({"programs": programs}, schema)
    assert faults({"programs": programs | {"calls": 0}}, schema)
    assert faults({"programs": programs | {"tool_time_s": "long"}}, schema)
