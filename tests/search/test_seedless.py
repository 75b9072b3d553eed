"""Replays: seeds that change nothing are noticed, nothing is repeated for them, and windows tell the intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.conftest import here, simslm  # noqa: F401

import simslm as product
from simslm.api import load_scenario, simulate

RATE = "throughput.output_tokens_per_s"


@pytest.fixture
def replayed(small: dict, tmp_path: Path) -> dict:
    """1,200 recorded requests."""
    draws = np.random.default_rng(2)
    arrivals = np.cumsum(draws.exponential(1 / 40, 1200))
    rows = [f"{at:.5f},{draws.integers(20, 400)},{draws.integers(2, 60)}" for at in arrivals]
    (tmp_path / "trace.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
    small["workload"] = {"replay": {"format": "csv", "path": str(tmp_path / "trace.csv")}}
    small["search"] = {
        "space": {"deployment.engine.max_num_seqs": [4, 16]},
        "objectives": {RATE: "max", "ttft_s.p50": "min", "energy.j_per_output_token": "min"},
        "near": 1.0,
    }
    return small


def seeds_of(found: Any) -> dict[int, list[int]]:
    rows = found.trials
    return {point: sorted(rows["seed"][rows["point"] == point]) for point in set(rows["point"])}


def test_a_replay_is_not_repeated(replayed):
    found = product.search(load_scenario(replayed))
    assert seeds_of(found) == {0: [0, 1], 1: [0, 1]}
    assert found.frontier["test"]["recorded"]
    for point in found.frontier["points"]:
        assert point["seedless"]
        assert len(point["runs"]) == 1
        low, high = point["objectives"][RATE]["interval"]
        assert 0 < low < point["objectives"][RATE]["value"] < high
        assert point["objectives"]["energy.j_per_output_token"]["interval"] is None


@pytest.mark.slow
def test_the_interval_is_the_one_that_the_run_states_of_itself(replayed):
    """What simulate calls the interval of other requests of the same kind, of a point's own run."""
    found = product.search(load_scenario(replayed))
    for point in found.frontier["points"]:
        scenario = load_scenario(replayed, point["parameters"])
        stated = simulate(scenario).summary["intervals"]["sampling"]["figures"]
        for path, objective in point["objectives"].items():
            wanted = stated.get(path)
            assert objective["interval"] == (None if wanted is None else pytest.approx(list(wanted))), path


@pytest.mark.slow
def test_what_draws_is_repeated_even_in_a_replay(replayed):
    """A router that draws: seeds change the run, though not the requests."""
    replayed["deployment"] = {"num_devices": 2, "router": {"policy": "random"}}
    found = product.search(load_scenario(replayed))
    assert set(map(tuple, seeds_of(found).values())) == {(0, 1, 2, 3, 4)}
    assert not any(point["seedless"] for point in found.frontier["points"])


@pytest.mark.slow
def test_each_point_is_judged_by_itself(replayed):
    replayed["deployment"] = {"num_devices": 2}
    replayed["search"]["space"] = {"deployment.router.policy": ["random", "round-robin"]}
    found = product.search(load_scenario(replayed))
    assert seeds_of(found) == {0: [0, 1, 2, 3, 4], 1: [0, 1]}


def test_equal_requests_all_at_once_are_seedless_too(replayed):
    replayed["workload"] = {
        "num_requests": 40,
        "arrivals": {"process": "all-at-once"},
        "prompt_tokens": {"dist": "fixed", "value": 100},
        "output_tokens": {"dist": "fixed", "value": 20},
    }
    found = product.search(load_scenario(replayed | {"slo": None}))
    assert seeds_of(found) == {0: [0, 1], 1: [0, 1]}
    assert not found.frontier["test"]["recorded"]
    assert all(each["interval"] is None for each in found.frontier["points"][0]["objectives"].values())


@pytest.mark.slow
def test_the_screen_says_so_and_shows_no_zero(replayed, simslm, here):  # noqa: F811
    import json

    (here / "replayed.json").write_text(json.dumps(replayed))
    ended = simslm("search", "replayed.json", "--jobs", "1")
    assert ended.code == 0, ended.err
    assert "Seeds do not change a replay" in ended.out
    assert "± 0 " not in ended.out
    page = (here / "runs/small/report.html").read_text(encoding="utf-8")
    assert "Seeds do not change a replay" in page
    assert "± 0 " not in page
