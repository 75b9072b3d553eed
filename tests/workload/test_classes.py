"""Several classes in one workload: each as it would be alone, together in order of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.invariants import simulate
from support.synthetic import Lists, deployment

from simslm.errors import ScenarioError
from simslm.scenario.classes import Traffic
from simslm.scenario.load import load_scenario
from simslm.workload import RequestArrays, requests_of

SHORT, LONG = {"dist": "uniform", "low": 5, "high": 50}, {"dist": "uniform", "low": 500, "high": 900}
CHAT = {"kind": "conversation", "turns": 3, "think_time_s": {"dist": "exponential", "mean": 2.0}}


def made(seed: int = 0, base: Path = Path(), **keys: Any) -> RequestArrays:
    workload = {
        "num_requests": 300,
        "arrivals": {"process": "poisson", "rate_rps": 10.0},
        "prompt_tokens": SHORT,
        "output_tokens": SHORT,
    }
    return requests_of(Traffic.model_validate(workload | keys), seed, 4096, base)


def lists(requests: RequestArrays) -> Lists:
    """The same as the simulator's tests have it."""
    names = Lists.__dataclass_fields__
    return Lists(**{name: getattr(requests, name) for name in names})


def of(requests: RequestArrays, name: str) -> np.ndarray:
    assert requests.class_of is not None
    return requests.class_of == requests.classes.index(name)


def test_shares_divide_the_arrivals():
    """The workload's own arrivals, each in one class, three quarters in the one with three times the share."""
    plain, both = made(), made(classes={"small": {"share": 3}, "large": {"prompt_tokens": LONG}})
    assert (both.arrival_s == plain.arrival_s).all()
    small, large = of(both, "small"), of(both, "large")
    assert (both.prompt_tokens[small] <= 50).all()
    assert (both.prompt_tokens[large] >= 500).all()
    assert abs(small.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 300)
    assert (small | large).all()
    assert both.classes == ("small", "large")


def test_a_class_of_its_own_is_what_it_is_alone():
    """Own arrivals are drawn for each class: another class changes nothing about it."""
    own = {"arrivals": {"process": "gamma", "rate_rps": 3.0, "cv": 2.0}, "num_requests": 100}
    batch = {"arrivals": {"process": "deterministic", "rate_rps": 1.0}, "num_requests": 50}
    one = made(num_requests=None, arrivals=None, classes={"own": own})
    both = {"own": own, "batch": batch | {"prompt_tokens": LONG}}
    two = made(num_requests=None, arrivals=None, classes=both)
    mine = of(two, "own")
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert (getattr(two, name)[mine] == getattr(one, name)).all()
    assert (two.arrival_s[of(two, "batch")] == np.arange(50)).all()
    assert (np.diff(two.arrival_s) >= 0).all()


def test_classes_have_priorities_patience_and_limits_of_their_own():
    both = made(
        timeout_s=7.0,
        classes={
            "chat": {"priority": -1, "timeout_s": 2.0},
            "batch": {"timeout_s": None, "max_tokens": 9},
            "rest": {"priorities": ({"value": 4, "share": 1.0},)},
        },
    )
    assert both.priority is not None
    assert both.patience_s is not None
    for name, priority, patience_s in (("chat", -1, 2.0), ("batch", 0, np.inf), ("rest", 4, 7.0)):
        assert set(both.priority[of(both, name)].tolist()) == {priority}
        assert set(both.patience_s[of(both, name)].tolist()) == {patience_s}
    assert (both.max_tokens[of(both, "batch")] == 9).all()
    assert (both.output_tokens[of(both, "batch")] <= 9).all()


def test_programs_and_requests_side_by_side():
    """A class of conversations beside one of requests: programs keep together, and every request is in one."""
    both = made(classes={"chat": {"programs": CHAT}, "single": {"share": 2}})
    graph = both.programs
    assert graph is not None
    chat = of(both, "chat")
    sizes = np.bincount(graph.program_of)
    assert set(sizes.tolist()) == {1, 3}
    assert (np.repeat(sizes == 3, sizes) == chat).all()
    assert (np.diff(graph.start_s) >= 0).all()
    assert (graph.start_s[graph.program_of] == both.arrival_s).all()
    follows = np.diff(graph.parent_ends, prepend=0) == 1
    assert (graph.parents == np.flatnonzero(follows) - 1).all()
    alone = made(classes={"chat": {"programs": CHAT}, "single": {"share": 2, "prompt_tokens": LONG}})
    assert (alone.prompt_tokens[of(alone, "chat")] == both.prompt_tokens[chat]).all()


def test_no_two_classes_share_a_prefix():
    """Two classes with the same system prompts, and one of conversations: units are distinct, blocks are not shared."""
    prefixes = {"count": 2, "tokens": 32}
    both = made(
        prompt_tokens=LONG,
        classes={"one": {"prefixes": prefixes}, "two": {"prefixes": prefixes}, "chat": {"programs": CHAT}},
    )
    assert both.units is not None
    units = {
        name: {unit for row in np.flatnonzero(of(both, name)).tolist() for unit in both.units[row]}
        for name in both.classes
    }
    assert len(units["one"]) == len(units["two"]) == 4
    assert not units["one"] & units["two"] | units["one"] & units["chat"] | units["two"] & units["chat"]
    engine = deployment(num_gpu_blocks=10**5, prefix_caching=True)
    cached = simulate(lists(both), engine).request_columns["cached_prompt_tokens"]
    assert cached[of(both, "one")].max() == cached[of(both, "two")].max() == 32
    assert cached[of(both, "chat")].max() > 500


def test_sessions_are_numbered_on():
    both = made(classes={"one": {"programs": CHAT}, "two": {"programs": CHAT}, "none": {}})
    assert both.session_id is not None
    one, two, none = (set(both.session_id[of(both, name)].tolist()) for name in ("one", "two", "none"))
    assert not one & two
    assert none == {-1}


def test_clients_of_a_closed_loop_beside_open_arrivals():
    """Two clients always have one request each under way, whatever the others do."""
    batch = {
        "arrivals": {"process": "closed-loop", "concurrency": 2, "think_time_s": 0.5},
        "num_requests": 20,
    }
    both = made(num_requests=40, classes={"chat": {}, "batch": batch})
    graph = both.programs
    assert graph is not None
    assert not graph.described
    assert np.isnan(graph.start_s[:20]).all()
    result = simulate(lists(both), deployment(max_num_seqs=4))
    assert "programs" not in result.summary
    assert "program" not in result.request_columns
    columns = result.request_columns
    mine = of(both, "batch")[columns["request_id"]]
    assert mine.sum() == 20
    begins, ends = np.sort(columns["arrival_s"][mine]), np.sort(columns["finish_s"][mine])
    assert (begins[2:] == ends[:-2] + 0.5).all()
    alone = made(num_requests=40)
    assert (columns["arrival_s"][~mine] == alone.arrival_s).all()


def test_classes_may_share_the_clients_of_a_closed_loop():
    """Without programs that is the closed loop there was; with programs each one follows another."""
    loop = {"process": "closed-loop", "concurrency": 4}
    plain = made(arrivals=loop, classes={"one": {}, "two": {"prompt_tokens": LONG}})
    assert plain.programs is None
    assert plain.closed_loop is not None
    assert plain.closed_loop.concurrency == 4
    mixed = made(num_requests=30, arrivals=loop, classes={"one": {}, "two": {"programs": CHAT}})
    assert mixed.programs is not None
    (clients,) = mixed.programs.clients
    assert clients.programs.tolist() == list(range(30))
    result = simulate(lists(mixed), deployment(max_num_seqs=2))
    assert result.summary["requests"]["finished"] == len(mixed)


def test_a_class_may_replay_a_trace(tmp_path):
    (tmp_path / "trace.csv").write_text(
        "arrival_s,prompt_tokens,output_tokens,session_id\n0,7,3,a\n5,8,4,a\n"
    )
    both = made(
        base=tmp_path,
        max_tokens=3,
        classes={"old": {"replay": {"format": "csv", "path": "trace.csv"}}, "new": {}},
    )
    old = of(both, "old")
    assert both.arrival_s[old].tolist() == [0.0, 5.0]
    assert both.prompt_tokens[old].tolist() == [7, 8]
    assert both.output_tokens[old].tolist() == [3, 3]
    assert len(both) == 302


def test_prefixes_known_in_different_units_are_refused(tmp_path):
    (tmp_path / "trace.jsonl").write_text(
        '{"timestamp": 0, "input_length": 600, "output_length": 4, "hash_ids": [1, 2]}\n'
    )
    replay = {"replay": {"format": "mooncake", "path": "trace.jsonl"}}
    with pytest.raises(ScenarioError, match=r"different numbers of tokens \(old of 512, new of 16\)"):
        made(base=tmp_path, classes={"old": replay, "new": {"prefixes": {"count": 1, "tokens": 16}}})


def test_a_class_without_requests_is_there_all_the_same():
    both = made(num_requests=1, classes={"one": {}, "two": {}, "three": {}})
    assert both.classes == ("one", "two", "three")
    assert len(both) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"classes": {}}, "at least 1"),
        ({"classes": {"a b": {}}}, "pattern"),
        ({"classes": {"a": {"num_requests": 3}}}, "cannot be stated by a class that shares"),
        ({"classes": {"a": {"share": 1, "arrivals": {"process": "poisson", "rate_rps": 1}}}}, "has its own"),
        ({"classes": {"a": {"priority": 1, "priorities": ({"value": 1, "share": 1},)}}}, "not both"),
        ({"output_tokens": None, "classes": {"a": {}}}, r"classes\.a: output_tokens missing"),
        ({"arrivals": None, "num_requests": None, "classes": {"a": {}}}, r"classes\.a: arrivals missing"),
        (
            {"classes": {"a": {"arrivals": {"process": "poisson", "rate_rps": 1}, "num_requests": 2}}},
            "arrivals, num_requests stand beside classes of which none takes them over",
        ),
        ({"classes": {"a": {"arrivals": {"process": "all-at-once"}}, "b": {}}}, r"classes\.a: num_requests"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        made(**keys)


def test_errors_and_overrides_reach_into_classes(small):
    """The nearest name, in a class as elsewhere; and ``--set`` changes the distribution of one class."""
    small["workload"]["classes"] = {"chat": {"shar": 2}}
    with pytest.raises(
        ScenarioError, match=r"workload\.classes\.chat\.shar: unknown key \(did you mean 'share'\?\)"
    ):
        load_scenario(small)
    small["workload"]["classes"] = {"chat": {"prompt_tokens": {"dist": "fixed", "value": 5}}}
    path = "workload.classes.chat.prompt_tokens"
    scenario = load_scenario(small, [f"{path}.dist=uniform", f"{path}.low=5", f"{path}.high=9"])
    assert scenario.workload.classes is not None
    assert scenario.workload.classes["chat"].prompt_tokens.high == 9  # type: ignore[union-attr]
    added = load_scenario(small, ["workload.classes.batch.share=3", "workload.classes.chat.slo.ttft_s=0.1"])
    assert added.workload.classes is not None
    assert set(added.workload.classes) == {"chat", "batch"}
