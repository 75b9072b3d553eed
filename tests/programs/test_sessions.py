"""The sessions of a recorded trace, whose users wait for their answers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.invariants import simulate
from support.synthetic import LinearCost, Lists, deployment

from simslm.errors import ScenarioError
from simslm.scenario.classes import Traffic
from simslm.workload import RequestArrays, requests_of

ROWS = """\
arrival_s,prompt_tokens,output_tokens,session_id,priority
0,10,4,b,3
1,20,5,a,1
2,30,6,,2
3,60,7,b,3
4,22,8,a,1
9,90,3,b,3
"""


def read(folder: Path, text: str = ROWS, **keys: Any) -> RequestArrays:
    (folder / "trace.csv").write_text(text)
    programs = {"kind": "sessions", "think_time_s": 0.5} | keys.pop("programs", {})
    workload = {"replay": {"format": "csv", "path": "trace.csv"}, "programs": programs} | keys
    return requests_of(Traffic.model_validate(workload), 0, 4096, folder)


def lists(requests: RequestArrays) -> Lists:
    return Lists(**{name: getattr(requests, name) for name in Lists.__dataclass_fields__})


def test_a_session_waits_for_its_answers(tmp_path):
    """Session b: three requests, each half a second after the last answer; its row at 9 s is long gone by then."""
    requests = read(tmp_path)
    assert requests.prompt_tokens.tolist() == [10, 60, 90, 20, 22, 30]
    assert requests.output_tokens.tolist() == [4, 7, 3, 5, 8, 6]
    assert requests.priority is not None
    assert requests.priority.tolist() == [3, 3, 3, 1, 1, 2]
    assert requests.session_id is not None
    assert requests.session_id.tolist() == [0, 0, 0, 1, 1, -1]
    steady = deployment(cost=LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0))
    columns = simulate(lists(requests), steady).request_columns
    tick = 2.0**-8
    assert columns["arrival_s"].tolist() == [0, 4 * tick + 0.5, 11 * tick + 1, 1, 1 + 5 * tick + 0.5, 2]


def test_pauses_are_drawn_for_every_request_that_waits(tmp_path):
    requests = read(tmp_path, programs={"think_time_s": {"dist": "exponential", "mean": 3.0}})
    assert requests.programs is not None
    waits = np.diff(requests.programs.parent_ends, prepend=0) == 1
    assert waits.tolist() == [False, True, True, False, True, False]
    assert ((requests.programs.delay_s > 0) == waits).all()


def test_prompts_that_are_long_enough_may_begin_with_what_was_said(tmp_path):
    """Turn 2 of b has 60 tokens, 14 of which were said before; that of a is too short to contain the 25 before it."""
    requests = read(tmp_path, programs={"history": True})
    assert requests.prompt_tokens.tolist() == [10, 60, 90, 20, 22, 30]
    engine = deployment(prefix_caching=True, cost=LinearCost(), block_size=2)
    columns = simulate(lists(requests), engine).request_columns
    assert columns["cached_prompt_tokens"].tolist() == [0, 0, 64, 0, 0, 0]
    assert not simulate(lists(read(tmp_path)), engine).request_columns["cached_prompt_tokens"].any()


def test_clients_of_a_closed_loop_may_start_recorded_sessions(tmp_path):
    requests = read(tmp_path, arrivals={"process": "closed-loop", "concurrency": 1})
    steady = deployment(cost=LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0))
    columns = simulate(lists(requests), steady).request_columns
    assert (columns["arrival_s"][[3, 5]] == columns["finish_s"][[2, 4]]).all()


def test_a_public_trace_with_sessions(workloads):
    """BurstGPT: every request of a session but its first is sent a second after the answer to the one before."""
    replay = {"format": "burstgpt", "path": "burstgpt3_w2.csv"}
    traffic = {"replay": replay, "programs": {"kind": "sessions", "think_time_s": 1.0}}
    requests = requests_of(Traffic.model_validate(traffic), 0, 10**6, workloads)
    plain = requests_of(Traffic.model_validate({"replay": replay}), 0, 10**6, workloads)
    assert sorted(requests.prompt_tokens.tolist()) == sorted(plain.prompt_tokens.tolist())
    engine = deployment(max_model_len=10**6, num_gpu_blocks=10**5)
    columns = simulate(lists(requests), engine).request_columns
    session = columns["request_id"] * 0 + requests.session_id
    follows = (session[1:] == session[:-1]) & (session[1:] >= 0)
    assert follows.sum() > 10
    assert (columns["arrival_s"][1:][follows] == columns["finish_s"][:-1][follows] + 1.0).all()


BURST = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
100.0,a,3,GPT-4,10,4,14,Conversation log
102.5,,1,GPT-4,5,5,10,API log
110.0,a,12,GPT-4,20,5,25,Conversation log
115.0,a,2,GPT-4,30,6,36,Conversation log
"""


def burst(folder: Path, text: str = BURST, replay: Any = None, **keys: Any) -> RequestArrays:
    (folder / "burst.csv").write_text(text)
    programs = {"kind": "sessions", "think_time_s": {"dist": "recorded"}}
    workload = {"replay": {"path": "burst.csv"} | (replay or {}), "programs": programs} | keys
    return requests_of(Traffic.model_validate(workload), 0, 4096, folder)


def test_users_think_as_long_as_they_did(tmp_path):
    """Ten seconds after the first request, whose answer took three: seven. The third did not wait for the second's."""
    requests = burst(tmp_path)
    assert requests.programs is not None
    assert requests.prompt_tokens.tolist() == [10, 20, 30, 5]
    assert requests.programs.delay_s.tolist() == [0, 7, 0, 0]
    steady = deployment(cost=LinearCost(2.0**-8, 0.0, 0.0, 0.0, 0.0))
    columns = simulate(lists(requests), steady).request_columns
    assert columns["arrival_s"][1] == columns["finish_s"][0] + 7
    slower = burst(tmp_path, replay={"time_scale": 2.0})
    assert slower.programs is not None
    assert slower.programs.delay_s.tolist() == [0, 14, 0, 0]


def test_what_the_trace_does_not_say_is_refused(tmp_path):
    """How long the answers took, and what follows from it at other times than the recorded ones."""
    for text in (BURST.replace("100.0,a,3,", "100.0,a,,"), ROWS):
        with pytest.raises(ScenarioError, match="does not say how long each answer took"):
            burst(tmp_path, text)
    with pytest.raises(ScenarioError, match="belong to the recorded times"):
        burst(tmp_path, replay={"rate_scale": {"factor": 2}})
    with pytest.raises(ScenarioError, match="belong to the recorded times"):
        burst(tmp_path, arrivals={"process": "closed-loop", "concurrency": 1})


def test_thinking_as_recorded_in_a_public_trace(workloads):
    """BurstGPT: every pause is what the file's own columns come to."""
    path = workloads / "burstgpt3_w2.csv"
    programs = {"kind": "sessions", "think_time_s": {"dist": "recorded"}}
    traffic = Traffic.model_validate({"replay": {"path": path.name}, "programs": programs})
    requests = requests_of(traffic, 0, 10**6, workloads)
    expected, last = [], {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            session, at = row["Session ID"], float(row["Timestamp"])
            if session and int(row["Response tokens"]):
                if session in last:
                    expected.append(max(at - last[session], 0.0))
                last[session] = at + float(row["Elapsed time"])
    assert requests.programs is not None
    follows = np.diff(requests.programs.parent_ends, prepend=0) == 1
    assert sorted(requests.programs.delay_s[follows].tolist()) == sorted(expected)
    assert len(expected) > 10


def test_without_sessions_it_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match="the replayed trace has no sessions"):
        read(tmp_path, "arrival_s,prompt_tokens,output_tokens\n0,10,4\n")


def test_without_a_replay_it_is_refused():
    workload = {
        "num_requests": 3,
        "arrivals": {"process": "poisson", "rate_rps": 3.0},
        "programs": {"kind": "sessions", "think_time_s": 1},
    }
    with pytest.raises(ValidationError, match="are those of a replay; give replay"):
        Traffic.model_validate(workload)


def test_other_programs_beside_a_replay_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="replay takes its requests from its file; remove programs"):
        read(tmp_path, programs={"kind": "conversation", "turns": 2})
