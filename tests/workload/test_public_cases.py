"""Public cases of traffic with their right answers, by the commands that their index states."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli.conftest import here, simslm  # noqa: F401

from simslm.api import load_scenario, simulate
from simslm.workload import requests_of


@pytest.fixture
def traffic(cases):
    return cases / "traffic"


def ran(path, **changes):
    return simulate(load_scenario(path, changes), with_intervals=False).requests


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("epoch-us.csv", "at most 2**32 either way"),
        ("sharegpt.json", "holds texts (conversations), and no numbers of tokens"),
        ("twice.csv", "has the column prompt_tokens twice"),
    ],
)
def test_what_is_no_trace_is_refused_as_what_it_is(name, words, traffic, simslm):  # noqa: F811
    ended = simslm("workload", "show", str(traffic / name))
    assert ended.code == 2
    assert words in ended.complaint


def test_a_prompt_that_is_cached_whole_computes_its_last_block(traffic):
    assert ran(traffic / "full-hit.yaml")["cached_prompt_tokens"].tolist() == [0, 1008, 1008]


def test_what_a_conversation_finds_cached_grows_round_by_round(traffic):
    """k / (k + 1) in round k, while nothing is evicted."""
    rows = ran(traffic / "rounds.yaml")
    share = rows.groupby("stage")[["cached_prompt_tokens", "prompt_tokens"]].sum()
    found = (share["cached_prompt_tokens"] / share["prompt_tokens"]).to_numpy()
    assert found[:4] == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4], abs=2e-4)


def test_taking_turns_gives_one_replica_all_long_answers(traffic):
    """Alternating lengths meet two replicas in turn; a router that looks at load does better."""
    rows = ran(traffic / "alternating.yaml")
    tokens = rows.groupby("replica")["output_tokens"].sum()
    assert tokens.tolist() == [12_000, 100]
    least = ran(traffic / "alternating.yaml", **{"deployment.router": {"policy": "least-outstanding"}})
    assert rows["finish_s"].max() == pytest.approx(33.9, abs=0.1)
    assert least["finish_s"].max() <= 27.4 + 0.1


@pytest.mark.slow
def test_the_rate_of_a_few_requests_is_said_beside_the_one_asked_for(traffic, simslm, here):  # noqa: F811
    """Ten Poisson arrivals rarely come at the rate that was asked for."""
    path = traffic / "few.yaml"
    said = []
    for seed in range(1, 7):
        ended = simslm("simulate", str(path), "--seed", str(seed), "-o", f"out{seed}")
        assert ended.code == 0, ended.err
        arrivals = requests_of(load_scenario(path, {"seed": seed}).workload, seed, 2048, traffic).arrival_s
        rate = 9 / np.ptp(arrivals)
        words = " ".join(ended.out.split())
        said.append(f"{rate:.3g}" in words and "10 requests/s" in words)
        assert said[-1] or abs(rate / 10 - 1) < 0.1, (seed, rate)
    assert sum(said) >= 3


def test_every_file_of_the_index_is_there(traffic):
    """The cases are read in place: a file that is gone would make the tests above say nothing."""
    index = json.loads((traffic / "index.json").read_text(encoding="utf-8"))
    assert all((traffic / case["file"]).is_file() for case in index if case["file"])
