"""``simslm plan`` at the terminal: the table, the JSON, and how it ends without an answer."""

from __future__ import annotations

import json

import pytest

SETUP = ("--set", "search={space: {deployment.engine.max_num_seqs: [8]}, objectives: {itl_s.p50: min}}")


@pytest.mark.slow
def test_it_prints_what_each_device_comes_to(simslm, scenario):
    ended = simslm("plan", scenario, "--rate", 3, "--device", "cpu", "--device", "l4", *SETUP)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("3 requests/s: choose 1 × ")
    for words in (
        "roofline, not measured",
        "max_num_seqs 8",
        "headroom",
        "simulate it: simslm simulate ",
        "vllm serve",
    ):
        assert words in ended.out


@pytest.mark.slow
def test_every_rate_is_planned_for_in_one_table(simslm, scenario):
    ended = simslm("plan", scenario, "--rate", 3, "--rate", 300, "--rate", 3, "--device", "cpu", *SETUP)
    assert (ended.code, ended.err) == (0, "")
    answers = [line for line in ended.out.splitlines() if " requests/s: choose " in line]
    assert [line.partition(" ")[0] for line in answers] == ["3", "300"]
    assert sum("requests/s  device" in line for line in ended.out.splitlines()) == 1
    assert "simulate the 3 requests/s: simslm simulate " in ended.out
    assert "serve the 300 requests/s:" in ended.out
    found = json.loads(
        simslm("plan", scenario, "--rate", 3, "--rate", 300, "--device", "cpu", "--json", *SETUP).out
    )
    assert [plan["rate_rps"] for plan in found["plans"]] == [3, 300]
    one = json.loads(simslm("plan", scenario, "--rate", 300, "--device", "cpu", "--json", *SETUP).out)
    assert one == found["plans"][1]


def test_a_rate_that_no_device_serves_is_named_beside_the_others(simslm, scenario):
    ended = simslm("plan", scenario, "--rate", 3, "--rate", 1e9, "--device", "cpu", *SETUP)
    assert ended.code == 4
    assert "3 requests/s: choose 1 × cpu" in ended.out
    assert ended.complaint.startswith("no device serves 1e+09 requests/s within the SLO: cpu: ")


@pytest.mark.slow
def test_the_command_that_it_prints_gives_the_same_figures(simslm, scenario):
    import shlex

    ended = simslm("plan", scenario, "--rate", 3, "--json", *SETUP)
    option = json.loads(ended.out)["options"][0]
    again = simslm(*shlex.split(option["command"])[1:], "--json")
    assert again.code == 0
    summary = json.loads(again.out)
    assert summary["slo"]["attainment"] == option["attainment"]
    assert summary["ttft_s"]["p99"] == option["ttft_p99_s"]
    assert simslm("plan", scenario, "--rate", 3, "--json", *SETUP).out == ended.out


@pytest.mark.slow
def test_traces_of_other_devices_are_compared(simslm, scenario, trace):
    arguments = ("plan", scenario, "--rate", 3, "--json", "--set", "device=l4", *SETUP)
    options = json.loads(simslm(*arguments).out)["options"]
    assert {option["device"]: option["source"] for option in options} == {"l4": "roofline", "cpu": "imported"}
    elsewhere = json.loads(simslm(*arguments, "--traces", "nowhere").out)["options"]
    assert [option["device"] for option in elsewhere] == ["l4"]


def test_no_device_is_an_answer(simslm, scenario):
    ended = simslm("plan", scenario, "--rate", 3, "--set", "slo.ttft_s=1e-7", *SETUP)
    assert (ended.code, ended.out) == (4, "")
    assert ended.complaint.startswith("no device serves 3 requests/s within the SLO: cpu: no value from ")


def test_a_rate_is_above_zero(simslm, scenario):
    for rate in (0, -1, "nan", "inf"):
        assert simslm("plan", scenario, "--rate", rate).code == 2


def test_a_scenario_without_an_slo(simslm, scenario):
    ended = simslm("plan", scenario, "--rate", 3, "--set", "slo=null")
    assert ended.code == 2
    assert "has no slo to meet" in ended.complaint
