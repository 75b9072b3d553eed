"""Priorities, patience and sessions: drawn apart from all else, or as a trace has them."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import generate
from simslm.workload.generate import REPLACED

BASE = {
    "num_requests": 4000,
    "arrivals": {"process": "poisson", "rate_rps": 8},
    "prompt_tokens": {"dist": "lognormal", "mean": 256, "p95": 768},
    "output_tokens": {"dist": "gamma", "mean": 100, "p95": 250},
}
ALL = {
    "priorities": [{"value": 5, "share": 3}, {"value": -2, "share": 1}],
    "timeout_s": 30.0,
    "cancellations": {"share": 0.25, "mean_after_s": 10.0},
    "prefixes": {"count": 7, "tokens": 100, "share": 0.5},
}


def requests(seed=0, **changes):
    return generate(Workload.model_validate(BASE | changes), seed, 4096, Path())


def test_what_is_not_stated_is_not_there():
    found = requests()
    assert found.priority is found.patience_s is found.units is found.session_id is None
    assert found.unit_tokens == 0


def test_arrivals_and_lengths_stay_whatever_clients_are_like():
    base, found = requests(), requests(**ALL)
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens"):
        assert np.array_equal(getattr(base, name), getattr(found, name))


@pytest.mark.parametrize("changed", ALL)
def test_changing_one_redraws_no_other(changed):
    base = requests(**ALL)
    found = requests(**{name: given for name, given in ALL.items() if name != changed})
    columns = {"priorities": "priority", "prefixes": "units"}
    for name in ("priority", "units"):
        same = np.array_equal if name == "priority" else lambda a, b: a == b
        kept = columns.get(changed) != name
        assert kept == (getattr(found, name) is not None and same(getattr(base, name), getattr(found, name)))
    if changed in columns:
        assert np.array_equal(base.patience_s, found.patience_s)


def test_a_shorter_workload_is_the_beginning_of_a_longer_one():
    long, short = requests(**ALL), requests(**ALL, num_requests=100)
    assert np.array_equal(short.priority, long.priority[:100])
    assert np.array_equal(short.patience_s, long.patience_s[:100])
    assert short.units == long.units[:100]


def test_priorities_have_their_shares():
    found = requests(priorities=ALL["priorities"]).priority
    assert found.dtype == np.int64
    assert set(found.tolist()) == {5, -2}
    assert np.mean(found == 5) == pytest.approx(0.75, abs=0.03)
    assert not np.array_equal(found, requests(1, priorities=ALL["priorities"]).priority)


def test_patience_is_the_smaller_of_timeout_and_cancellation():
    alone = requests(cancellations=ALL["cancellations"]).patience_s
    leaving = np.isfinite(alone)
    assert leaving.mean() == pytest.approx(0.25, abs=0.03)
    assert alone[leaving].mean() == pytest.approx(10, rel=0.1)
    assert alone[leaving].std() == pytest.approx(10, rel=0.1)
    assert set(requests(timeout_s=30.0).patience_s) == {30.0}
    assert np.array_equal(requests(**ALL).patience_s, np.minimum(alone, 30.0))


def test_the_share_and_the_mean_of_cancellations_scale_what_is_drawn():
    few = requests(cancellations={"share": 0.1, "mean_after_s": 1.0}).patience_s
    many = requests(cancellations={"share": 0.5, "mean_after_s": 2.0}).patience_s
    leaving = np.isfinite(few)
    assert np.array_equal(many[leaving], 2 * few[leaving])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"priorities": []}, "at least 1 item"),
        ({"priorities": [{"value": 1, "share": 0}]}, "greater than 0"),
        ({"priorities": [{"value": 1.5, "share": 1}]}, "valid integer"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"timeout_s": float("inf")}, "finite"),
        ({"cancellations": {"share": 1.1, "mean_after_s": 1}}, "less than or equal to 1"),
        ({"cancellations": {"share": 0.5}}, "Field required"),
        ({"prefixes": {"count": 1, "tokens": 8}}, "greater than or equal to 16"),
        ({"prefixes": {"count": 10**6, "tokens": 10**6}}, "all prefixes together"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Workload.model_validate(BASE | changes)


def test_a_workload_cannot_be_changed_once_read():
    workload = Workload.model_validate(BASE | ALL)
    for part in (workload, workload.cancellations, workload.prefixes, workload.priorities[0]):
        with pytest.raises(ValidationError, match="frozen"):
            part.share = 1.0


# ---- replayed ----------------------------------------------------------------------------------------------

TRACE = """arrival_s,session_id,prompt_tokens,output_tokens,patience_s,priority
5,b,1,1,2.5,3
1,a,2,1,,0
2,,3,1,7,-1
3,b,4,1,0.5,9
4,-1,5,1,,2
"""


def replay(tmp_path, text=TRACE, **changes):
    (tmp_path / "trace.csv").write_text(text)
    replay = {"format": "csv", "path": "trace.csv"}
    return generate(Workload.model_validate({"replay": replay} | changes), 0, 4096, tmp_path)


def test_a_trace_may_state_its_clients(tmp_path):
    found = replay(tmp_path)
    assert found.prompt_tokens.tolist() == [2, 3, 4, 5, 1]
    assert found.priority.tolist() == [0, -1, 9, 2, 3]
    assert found.session_id.tolist() == [0, -1, 1, -1, 1]
    assert found.patience_s.tolist() == [np.inf, 7, 0.5, np.inf, 2.5]
    assert found.notes == ()


def test_sessions_are_numbered_by_first_arrival_after_a_cut(tmp_path):
    rows = ["9,x", "3,y", "2,z", "1,y", "4,w"]
    text = "arrival_s,session_id,prompt_tokens,output_tokens\n" + "".join(f"{row},1,1\n" for row in rows)
    assert replay(tmp_path, text).session_id.tolist() == [0, 1, 0, 2, 3]
    options = {"format": "csv", "path": "trace.csv", "limit": 3}
    assert replay(tmp_path, text, replay=options).session_id.tolist() == [0, 1, 0]
    blank = text.translate(str.maketrans("xyzw", "    ")).replace(" ", "")
    assert replay(tmp_path, blank).session_id is None


def test_what_the_workload_states_applies_to_a_replay(tmp_path):
    stated = {"priorities": [{"value": 4, "share": 1}], "timeout_s": 5.0}
    found = replay(tmp_path, **stated)
    assert found.priority.tolist() == [4] * 5
    assert found.patience_s.tolist() == [5, 5, 0.5, 5, 2.5]
    assert found.notes == (REPLACED,)
    with pytest.raises(ValidationError, match="remove prefixes"):
        replay(tmp_path, prefixes={"count": 1, "tokens": 16})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("priority", "1.5", "priority: expected a whole number"),
        ("patience_s", "-1", "patience_s: expected a number of seconds, 0 or more"),
        ("patience_s", "nan", "patience_s: expected a number of seconds, 0 or more"),
        ("patience_s", "inf", "patience_s: expected a number of seconds, 0 or more"),
        ("patience_s", "soon", "patience_s: expected a number of seconds, 0 or more"),
    ],
)
def test_a_client_that_makes_no_sense_is_named_by_its_line(name, value, message, tmp_path):
    text = f"arrival_s,prompt_tokens,output_tokens,{name}\n1,1,1,1\n2,1,1,{value}\n"
    with pytest.raises(ScenarioError, match=message) as caught:
        replay(tmp_path, text)
    assert caught.value.where.endswith("trace.csv:3")


def test_sessions_of_burstgpt(workloads):
    """The calls of one conversation share a number, single calls have none; by way of Python's csv."""
    import csv

    path = workloads / "burstgpt3_w1.csv"
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["Response tokens"]) > 0]
    rows.sort(key=lambda row: float(row["Timestamp"]))
    numbers = {}
    expected = [
        -1 if not row["Session ID"] else numbers.setdefault(row["Session ID"], len(numbers)) for row in rows
    ]
    replay = {"replay": {"format": "burstgpt", "path": path.name}}
    found = generate(Workload.model_validate(replay), 0, 4096, path.parent)
    assert found.session_id.tolist() == expected
    assert len(numbers) < len(rows)
    assert -1 in expected
    replay["replay"]["path"] = "burstgpt1.csv"
    assert generate(Workload.model_validate(replay), 0, 4096, path.parent).session_id is None
