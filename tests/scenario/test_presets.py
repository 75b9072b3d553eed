"""Presets in a scenario: what they say, what is stated beside them, and overrides."""

from pathlib import Path

import pytest

from simslm.errors import ScenarioError
from simslm.scenario.load import load_scenario

ROOT = Path(__file__).parents[2]
MINE = """\
what: two kinds
workload:
  num_requests: 100
  arrivals:
    process: clients
    rate_rps: 4.0
    clients:
    - {share: 1, prompt_tokens: {dist: fixed, value: 5}, output_tokens: {dist: fixed, value: 6}}
    - {share: 2, prompt_tokens: {dist: fixed, value: 7}, output_tokens: {dist: fixed, value: 8}}
  correlation: 0.0
"""


def loaded(workload, overrides=None):
    given = {
        "name": "x",
        "model": "opt-125m",
        "device": "cpu",
        "cost": {"roofline": {}},
        "workload": workload,
    }
    return load_scenario(given, overrides).workload


def test_a_preset_says_what_is_not_stated():
    found = loaded({"preset": "azure-2023-code"})
    assert found.arrivals.process == "rate-curve"
    assert found.num_requests == 5100
    assert found.preset == "azure-2023-code"


def test_what_is_stated_takes_its_place():
    found = loaded({"preset": "azure-2023-code", "num_requests": 7, "arrivals": {"rate_rps": 50}})
    assert (found.num_requests, found.arrivals.rate_rps, found.arrivals.step_s) == (7, 50, 60)
    found = loaded({"preset": "azure-2023-code", "arrivals": {"process": "poisson", "rate_rps": 2}})
    assert found.arrivals.process == "poisson"
    found = loaded({"preset": "azure-2023-code", "output_tokens": {"dist": "fixed", "value": 9}})
    assert (found.output_tokens.value, found.prompt_tokens.dist) == (9, "quantiles")


def test_a_stated_end_is_the_only_one():
    assert loaded({"preset": "azure-2023-code", "duration_s": 60.0}).num_requests is None
    assert loaded({"preset": "azure-2023-code"}, ["workload.duration_s=60"]).num_requests is None


def test_overrides_reach_into_a_preset():
    found = loaded(
        {"preset": "azure-2023-code"}, ["workload.arrivals.rate_rps=50", "workload.arrivals.step_s=6"]
    )
    assert (found.arrivals.rate_rps, found.arrivals.step_s) == (50, 6)
    found = loaded({"preset": "azure-2023-code"}, ["workload.arrivals.process=poisson"])
    assert (found.arrivals.process, found.arrivals.rate_rps) == ("poisson", 3.0796)
    found = loaded({"preset": "azure-2023-conv"}, ["workload.arrivals.clients.0.share=5"])
    assert found.arrivals.clients[0].share == 5


def test_an_override_changes_the_preset_or_replaces_it():
    stated = {
        "num_requests": 50,
        "arrivals": {"process": "poisson", "rate_rps": 1},
        "prompt_tokens": {"dist": "fixed", "value": 1},
        "output_tokens": {"dist": "fixed", "value": 1},
    }
    found = loaded(stated, ["workload.preset=mooncake-synthetic"])
    assert (found.num_requests, found.arrivals.process) == (50, "rate-curve")
    found = loaded({"preset": "azure-2023-conv"}, ["workload.preset=azure-2023-code"])
    assert found.arrivals.process == "rate-curve"
    found = loaded({"preset": "azure-2023-conv"}, ["workload.replay={path: x.csv}"])
    assert (found.preset, found.arrivals, found.replay.path) == (None, None, "x.csv")


def test_a_replay_keeps_arrivals_of_one_s_own_when_a_key_of_it_is_set():
    stated = {"replay": {"path": "x.csv"}, "arrivals": {"process": "poisson", "rate_rps": 1}}
    found = loaded(stated, ["workload.replay.limit=5", "workload.arrivals.rate_rps=3"])
    assert (found.replay.limit, found.arrivals.rate_rps) == (5, 3)
    assert loaded(stated, ["workload.replay={path: y.csv}"]).arrivals is None


def test_lengths_that_are_stated_hold_for_every_client(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    found = loaded({"preset": str(tmp_path / "mine.yaml"), "prompt_tokens": {"dist": "fixed", "value": 3}})
    assert [client.prompt_tokens for client in found.arrivals.clients] == [None, None]
    assert [client.output_tokens.value for client in found.arrivals.clients] == [6, 8]


def test_a_file_is_relative_to_the_scenario(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    scenario = "name: x\nmodel: opt-125m\ndevice: cpu\ncost: {roofline: {}}\nworkload: {preset: mine.yaml}\n"
    (tmp_path / "scenario.yaml").write_text(scenario)
    assert load_scenario(tmp_path / "scenario.yaml").workload.num_requests == 100


def test_what_a_scenario_resolves_to_is_the_same_scenario():
    found = loaded({"preset": "azure-2023-conv", "num_requests": 9})
    again = loaded(found.model_dump(mode="json"))
    assert again == found


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"preset": "azure-2023-con"}, r"workload\.preset: no workload .*did you mean 'azure-2023-conv'"),
        ({"preset": "nothing.yaml"}, r"workload\.preset: nothing\.yaml: cannot be read"),
        ({"preset": 7}, "valid string"),
        ({"preset": "ragpulse", "replay": {"path": "x"}}, "give preset or replay, not both"),
        ({"preset": "arxiv-summarization"}, "arrivals missing"),
        ({"preset": "azure-2023-code", "arrivals": {"rate": 3}}, "did you mean 'rate_rps'"),
        ({"preset": "azure-2023-code", "arrivals": 3}, "expected a section"),
    ],
)
def test_presets_that_cannot_be_used_are_refused(workload, message):
    with pytest.raises(ScenarioError, match=message):
        loaded(workload)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("what: x\n", "workload: expected a section of keys"),
        ("workload: 3\n", "workload: expected a section of keys"),
        (MINE + "sauce: {}\n", "sauce: unknown key .did you mean 'source'"),
        ("workload: {preset: ragpulse}\n", "it names no other"),
        ("- 1\n", "expected a mapping"),
        ("workload: [\n", "not valid YAML"),
    ],
)
def test_files_that_are_no_presets_are_refused(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message) as caught:
        loaded({"preset": str(path)})
    assert str(path) in str(caught.value)
