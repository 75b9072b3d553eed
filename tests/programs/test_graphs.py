"""Programs from a file: what each request reads, and one clear error for what is wrong, with its line."""

from __future__ import annotations

import json

import pytest
from support.invariants import simulate
from support.synthetic import LinearCost, Lists, deployment

from simslm.errors import ScenarioError
from simslm.scenario.classes import Traffic
from simslm.workload import RequestArrays, requests_of

PLAN = {
    "texts": {"rules": 64},
    "requests": [
        {"id": "answer", "prompt_tokens": 8, "output_tokens": 30, "extends": "plan", "reads": ["a", "b"]},
        {"id": "plan", "prompt_tokens": 20, "output_tokens": 40, "text": "rules"},
        {
            "id": "a",
            "prompt_tokens": 5,
            "output_tokens": 11,
            "text": "rules",
            "after": ["plan"],
            "delay_s": 0.5,
        },
        {"id": "b", "prompt_tokens": 6, "output_tokens": 12, "after": ["plan"], "reasoning_tokens": 3},
    ],
}
LONE = {"requests": [{"id": "x", "prompt_tokens": 3, "output_tokens": 2}]}


def read(path, count: int = 4) -> RequestArrays:
    workload = {
        "num_requests": count,
        "arrivals": {"process": "deterministic", "rate_rps": 1.0},
        "programs": {"kind": "graphs", "file": path.name},
    }
    return requests_of(Traffic.model_validate(workload), 0, 4096, path.parent)


def written(tmp_path, name: str, *programs) -> RequestArrays:
    path = tmp_path / name
    lines = "".join(json.dumps(program) + "\n" for program in programs)
    path.write_text(lines if name.endswith(".jsonl") else json.dumps(list(programs), indent=1))
    return read(path)


@pytest.mark.parametrize("name", ["programs.jsonl", "programs.json", "programs.yaml"])
def test_programs_of_a_file_come_in_turn(tmp_path, name):
    """Requests come in an order in which they can be sent; each prompt is what it names, one after the other."""
    requests = written(tmp_path, name, PLAN, LONE)
    assert requests.prompt_tokens.tolist() == [84, 69, 6, 124 + 11 + 12 + 8, 3] * 2
    assert requests.output_tokens.tolist() == [40, 11, 15, 30, 2] * 2
    graph = requests.programs
    assert graph is not None
    assert graph.program_of.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2, 3]
    assert graph.parents.tolist()[:5] == [0, 0, 0, 1, 2]
    assert graph.parent_ends.tolist()[:5] == [0, 1, 2, 5, 5]
    assert graph.delay_s.tolist()[:4] == [0.0, 0.5, 0.0, 0.0]


def test_programs_that_name_a_text_share_it(tmp_path):
    """The second program finds the first one's rules: four blocks of 16 tokens; its own answers are its own."""
    requests = written(tmp_path, "programs.jsonl", PLAN)
    columns = simulate(as_lists(requests), deployment(prefix_caching=True, cost=LinearCost())).request_columns
    assert columns["cached_prompt_tokens"].tolist()[:4] == [0, 64, 0, 112]
    assert columns["cached_prompt_tokens"].tolist()[4:8] == [64, 64, 0, 112]


def as_lists(requests: RequestArrays) -> Lists:
    return Lists.of(
        requests.arrival_s,
        requests.prompt_tokens,
        requests.output_tokens,
        units=requests.units,
        unit_tokens=requests.unit_tokens,
        context_units=requests.context_units,
        programs=requests.programs,
    )


def test_yaml_by_hand(tmp_path):
    path = tmp_path / "programs.yaml"
    path.write_text(
        "- texts: {rules: 32}\n  requests:\n"
        "    - {id: one, prompt_tokens: 10, output_tokens: 5, text: rules}\n"
        "    - {id: two, prompt_tokens: 1, output_tokens: 5, extends: one, delay_s: 1}\n"
    )
    assert read(path, 1).prompt_tokens.tolist() == [42, 48]


def changed(place: int, **keys) -> dict:
    requests = [dict(each) for each in PLAN["requests"]]
    requests[place] |= keys
    return {"texts": PLAN["texts"], "requests": requests}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (changed(1, after=["answer"]), "is never sent, as requests it depends on wait for each other"),
        (changed(2, after=["plam"]), r"a: no request 'plam' \(did you mean 'plan'\?\)"),
        (changed(2, text="rule"), r"a: no text 'rule' \(did you mean 'rules'\?\)"),
        (changed(0, text="rules"), "either with a text or with what extends names"),
        (changed(3, id="a"), "two requests are called 'a'"),
        (changed(3, prompt_tokens=0), "b: its prompt is empty"),
        (changed(3, prompt_tokens=-1), "requests.3.prompt_tokens: input should be greater than or equal to 0"),
        (changed(3, output_tokens=1.5), "requests.3.output_tokens"),
        (changed(3, delay_s=1e300), "requests.3.delay_s"),
        (changed(3, output_token=1), r"requests.3.output_token: unknown key \(did you mean 'output_tokens'\?\)"),
        ({"requests": []}, "requests"),
        ([1, 2], "programs.jsonl:2"),
        ("text", "programs.jsonl:2"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_program_is_said_with_its_line(tmp_path, program, message):
    with pytest.raises(ScenarioError, match=message) as caught:
        written(tmp_path, "programs.jsonl", LONE, program)
    assert "programs.jsonl:2" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("programs.jsonl", b"", "holds no program"),
        ("programs.jsonl", b"\n\n", "holds no program"),
        ("programs.jsonl", b'{"requests": [\n', r"programs.jsonl:1: not valid JSON"),
        ("programs.jsonl", b"[" * 100_000, r"programs.jsonl:1: not valid JSON"),
        ("programs.jsonl", b'{"requests": "\xff"}', "cannot be read as text"),
        (
            "programs.jsonl",
            b'{"requests": [{"id": "\x00", "prompt_tokens": NaN, "output_tokens": 1}]}',
            "jsonl:1",
        ),
        ("programs.yaml", b"requests: []", "expected a list of programs"),
        ("programs.yaml", b"- {a: [}", r"programs.yaml:1: not valid YAML"),
        ("programs.yaml", b"- 2024-01-01\n", r"programs.yaml:1: no program"),
        ("programs.csv", b"a,b\n", "are read from .jsonl"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match=message):
        read(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ScenarioError, match="no such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ScenarioError, match="is a folder"):
        read(tmp_path / "folder.jsonl")
