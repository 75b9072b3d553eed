"""Broken scenarios: one clear line with file and line number, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import SCENARIO

EMPTY = "arrival_s,prompt_tokens,output_tokens\n"

ONE_LINE = [
    # what, old text, new text, line, words, exit code
    ("unknown key", "max_num_seqs", "max_num_seq", 16, "unknown key (did you mean 'max_num_seqs'?)", 2),
    ("wrong type", "num_requests: 30", "num_requests: many", 9, "valid integer", 2),
    ("a list", "max_num_seqs: 8", "max_num_seqs: [1, 2]", 16, "valid integer", 2),
    (
        "a value for a section",
        "{process: poisson, rate_rps: 2}",
        "poisson",
        10,
        "expected a section of keys",
        2,
    ),
    ("negative", "rate_rps: 2", "rate_rps: -2", 10, "greater than 0, got -2", 2),
    ("NaN", "rate_rps: 2", "rate_rps: .nan", 10, "finite number", 2),
    ("infinite", "rate_rps: 2", "rate_rps: 1e400", 10, "finite number", 2),
    ("unknown policy", "round-robin", "round-robins", 14, "did you mean 'round-robin'", 2),
    ("unknown process", "poisson", "poison", 10, "did you mean 'poisson'", 2),
    ("no requests", "num_requests: 30", "num_requests: 0", 9, "greater than or equal to 1", 2),
    ("malformed YAML", "{roofline: {}}", "{roofline: {}", 8, "not valid YAML", 2),
    ("a key twice", "seed: 3", "name: other", 3, "not valid YAML", 2),
    ("an option of another kind", "process: poisson", "process: all-at-once", 10, "rate_rps: unknown key", 2),
    ("missing trace", "{roofline: {}}", "{trace: nowhere}", 7, "no such trace directory", 3),
    ("too large a model", "opt-125m\ndevice: cpu", "llama-2-13b\ndevice: l4", 4, "does not fit", 4),
    ("nothing fits", "value: 64", "value: 5000", 8, "none of the 30 requests can be served", 2),
    ("unknown model", "opt-125m", "opt-126m", 4, "did you mean 'opt-125m'", 2),
    ("unknown device", "device: cpu", "device: cpus", 5, "did you mean 'cpu'", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "line", "words", "code"), [row[1:] for row in ONE_LINE],
                         ids=[row[0] for row in ONE_LINE])  # fmt: skip
@pytest.mark.parametrize("command", ["simulate", "check"])
def test_one_line_and_nothing_left(simslm, here, command, old, new, line, words, code):
    assert old in SCENARIO
    (here / "broken.yaml").write_text(SCENARIO.replace(old, new, 1), encoding="utf-8")
    ended = simslm(command, "broken.yaml")
    assert ended.code == code
    assert words in ended.complaint
    assert ended.complaint.startswith(f"broken.yaml:{line}: ")
    assert ended.out == ""
    assert [path.name for path in here.iterdir()] == ["broken.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a scenario is a mapping"),
        (b"- 1\n", "a scenario is a mapping"),
        (b"just words", "a scenario is a mapping"),
        (b"\x80\x00\xff" * 99, "cannot be read as text"),
        (b"a: " + b"[" * 900 + b"]" * 900, "nested too deeply"),
        (b"seed: 1" + b"0" * 5000, "not valid YAML"),
        (b"\tname: x\n", "not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML"),
        (b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
         + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 12)),
         "too many values"),
        (b"#" * (1 << 24) + b"\n", "too large for a scenario"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_scenario_at_all(simslm, here, content, words):
    (here / "broken.yaml").write_bytes(content)
    ended = simslm("simulate", "broken.yaml")
    assert ended.code == 2
    assert words in ended.complaint
    assert ended.complaint.startswith("broken.yaml")
    assert [path.name for path in here.iterdir()] == ["broken.yaml"]


@pytest.mark.parametrize(("path", "words"), [("nowhere.yaml", "no such file"), (".", "is a directory")])
def test_a_path_that_is_no_file(simslm, path, words):
    ended = simslm("simulate", path)
    assert ended.code == 2
    assert words in ended.complaint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (EMPTY, "the file has no rows"),
        ("", "empty"),
        (EMPTY + "0,10,5\nx,1,1\n", "requests.csv:3: "),
        (EMPTY.replace("_s", ""), "no column"),
        (None, "no such file"),
    ],
)
def test_a_replay_with_nothing_in_it(simslm, scenario, here, content, words):
    if content is not None:
        (here / "requests.csv").write_text(content, encoding="utf-8")
    before = {path.name for path in here.iterdir()}
    ended = simslm("simulate", scenario, "--set", "workload={replay: {format: csv, path: requests.csv}}")
    assert ended.code == 2
    assert "requests.csv" in ended.complaint
    assert words in ended.complaint
    assert {path.name for path in here.iterdir()} == before


def test_all_faults_at_once(simslm, here):
    text = (
        SCENARIO.replace("seed: 3", "seed: -3")
        .replace("max_num_seqs", "max_num_seq")
        .replace("low: 1", "low: 0")
    )
    (here / "broken.yaml").write_text(text, encoding="utf-8")
    ended = simslm("simulate", "broken.yaml")
    assert ended.code == 2
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == [
        "broken.yaml:3",
        "broken.yaml:12",
        "broken.yaml:16",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (
            "deployment.engine.max_num_seq=4",
            "--set: deployment.engine.max_num_seq: unknown key (did you mean",
        ),
        ("deployment.router.policy=magic", "--set: deployment.router.policy: unknown policy 'magic'"),
        ("cost.transforms.0.host.fixed_s=1", "--set: cost.transforms: expected a list"),
        ("slo.attainment=2", "--set: slo.attainment: "),
        ("deployment.groups=[]", "--set: deployment.groups: expected at least 1 in the list, got 0"),
        ("seed=x", "--set: seed: "),
        ("name.first=x", "--set name.first: name is a value, not a section"),
        ("deployment..engine=1", "--set deployment..engine: expected keys with a dot between"),
        ("=1", "--set: expected path=value"),
        ("seed", "--set: expected path=value"),
        ("seed=[1", "--set: the value of 'seed=[1' is not valid YAML"),
        ("model=\x1b[31mred", "--set: "),
    ],
)
def test_a_bad_override_is_named(simslm, scenario, setting, complaint):
    ended = simslm("simulate", scenario, "--set", setting)
    assert ended.code == 2
    assert ended.complaint.startswith(complaint)
    assert "\x1b" not in ended.err


def test_an_unknown_option_is_only_compared_with_those_of_the_same_kind(simslm, scenario):
    setting = "workload.arrivals={process: all-at-once, rate_rps: 2}"
    ended = simslm("simulate", scenario, "--set", setting)
    assert ended.complaint == "--set: workload.arrivals.rate_rps: unknown key"


def test_debug_shows_the_traceback_with_the_same_exit_code(simslm, here):
    (here / "broken.yaml").write_text("model: 5\n", encoding="utf-8")
    plain = simslm("simulate", "broken.yaml")
    debug = simslm("simulate", "--debug", "broken.yaml")
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.err
    assert debug.err.startswith("Traceback (most recent call last)")
    assert debug.err.endswith(plain.err)


def test_a_fault_of_its_own_says_so_on_one_line(simslm, scenario, monkeypatch):
    from simslm import api

    monkeypatch.setattr(api, "load_scenario", lambda *_: {}["lost"])
    ended = simslm("simulate", scenario)
    assert ended.code == 70
    assert "a fault of simslm's own: KeyError: 'lost'" in ended.complaint


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("8 TiB"), "more memory is needed"),
        (OSError(28, "No space left on device", "out.parquet"), "out.parquet: No space left on device"),
    ],
)
def test_what_the_machine_refuses(simslm, scenario, monkeypatch, error, words):
    from simslm import api

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(api, "load_scenario", refuse)
    ended = simslm("simulate", scenario)
    assert ended.code == 5
    assert words in ended.complaint


def test_json_may_be_indented_with_tabs(simslm, here):
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(SCENARIO)
    Path("tabs.json").write_text(json.dumps(content, indent="\t"), encoding="utf-8")
    assert simslm("simulate", "tabs.json").code == 0
