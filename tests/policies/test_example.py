"""The examples of the documentation are whole policies: dropped into their folders, they serve and conform."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.examples import put_in_place, python

ONE_PROMPT = """
import sys
import simslm
from simslm.policies.registry import lookup
assert simslm.__file__.startswith(sys.argv[1]), simslm.__file__
print(lookup("batching", "one-prompt").summary)
result = simslm.simulate(simslm.load_scenario(sys.argv[2]))
print(result.summary["requests"]["finished"], int(result.iterations["prefill_seqs"].max()))
"""

SEMANTIC_CACHE = """
import sys
import simslm
from simslm.policies.registry import lookup
assert simslm.__file__.startswith(sys.argv[1]), simslm.__file__
print(lookup("gateway", "semantic-cache").summary)
def answered(threshold):
    scenario = simslm.load_scenario(sys.argv[2], {"deployment.gateway.threshold": threshold})
    result = simslm.simulate(scenario, with_intervals=False)
    assert result.summary["requests"]["finished"] == 300
    assert result.summary["gateway"]["answered"] == result.requests["replica"].isna().sum()
    return result.summary["gateway"]["answered"]
print(answered(0.9) > 100, answered(0.9) < answered(0.0))
"""


FLEET = """
import sys
import simslm
from simslm.policies.registry import lookup
assert simslm.__file__.startswith(sys.argv[1]), simslm.__file__
print(lookup("scaling", "queue-length").summary)
print(lookup("migration", "even-out").summary)
for migration in ("freeness", "even-out"):
    scenario = simslm.load_scenario(sys.argv[2], {"deployment.migration.policy": migration})
    summary = simslm.simulate(scenario, with_intervals=False).summary
    assert summary["requests"]["finished"] == 600
    fleet = summary["fleet"]
    print(fleet["starts"] > 0, fleet["most_replicas"] > 1, fleet["migrations"] > 0, summary["queue_s"]["mean"])
"""


def in_place(page: str, checkout: Path) -> Path:
    put_in_place(page, checkout, {"add-a-policy.md": 30, "gateway.md": 79, "fleet.md": 79}[page])
    return checkout


@pytest.mark.slow
def test_the_example_serves_a_scenario_that_names_it(tmp_path):
    checkout = in_place("add-a-policy.md", tmp_path)
    said = python(checkout, "-c", ONE_PROMPT, str(checkout), "scenario.yaml").splitlines()
    assert said[0].startswith("Every decode, and whole prompts up to a number")
    assert said[1] == "200 2"


@pytest.mark.slow
def test_the_example_of_a_gateway_answers_similar_prompts(tmp_path):
    checkout = in_place("gateway.md", tmp_path)
    said = python(checkout, "-c", SEMANTIC_CACHE, str(checkout), "scenario.yaml").splitlines()
    assert said[0].startswith("The response of a remembered prompt that is similar enough")
    assert said[1] == "True True"


@pytest.mark.slow
def test_the_examples_of_a_fleet_scale_and_move(tmp_path):
    checkout = in_place("fleet.md", tmp_path)
    said = python(checkout, "-c", FLEET, str(checkout), "scenario.yaml").splitlines()
    assert said[0].startswith("A replica more above a queue length")
    assert said[1].startswith("From the replica with most requests to that with fewest")
    balanced, evened = (line.split() for line in said[2:])
    assert balanced[:3] == ["True", "True", "False"]
    assert evened[:3] == ["True", "True", "True"]
    assert float(evened[3]) < float(balanced[3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "name", "tests"),
    [
        ("add-a-policy.md", "one-prompt", 11),
        ("gateway.md", "semantic-cache", 6),
        ("fleet.md", "queue-length or even-out", 12),
    ],
)
def test_the_example_is_picked_up_by_the_conformance_suite(tmp_path, page, name, tests):
    checkout = in_place(page, tmp_path)
    suite = ("-m", "pytest", "-p", "no:cacheprovider", "tests/policies/test_conformance.py", "-k", name)
    said = python(checkout, *suite)
    assert re.search(rf"\b{tests} passed", said), said
