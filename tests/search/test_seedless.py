"""Replays: seeds that change nothing are noticed, nothing is repeated for them, and windows tell the intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.conftest import here, simslm  # noqa: F401
from scipy import stats

import simslm as product
from simslm.api import load_scenario, simulate
from simslm.search.windows import half_widths

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


def test_the_interval_is_that_of_windows_by_hand(replayed):
    result = simulate(load_scenario(replayed), with_intervals=False)
    columns = result.request_columns
    found = half_widths(result, ["ttft_s.p50", "ttft_s.p99", RATE, "slo.attainment"], {"ttft_s": 0.5})
    assert set(found) == {"ttft_s.p50", RATE}  # too few requests beyond the others
    figure = result.summary["ttft_s"]["p50"]
    parts = np.array([np.median(part) for part in np.array_split(columns["ttft_s"], 10)])
    half = stats.t.ppf(0.975, 9) * np.sqrt(np.sum((parts - figure) ** 2) / 9 / 10)
    assert found["ttft_s.p50"] == pytest.approx(half)
    edges = np.linspace(columns["arrival_s"].min(), columns["finish_s"].max(), 11)
    rates = np.histogram(columns["finish_s"], edges, weights=columns["output_tokens"])[0] / np.diff(edges)
    half = stats.t.ppf(0.975, 9) * np.sqrt(
        np.sum((rates - result.summary["throughput"]["output_tokens_per_s"]) ** 2) / 90
    )
    assert found[RATE] == pytest.approx(half)


def test_what_draws_is_repeated_even_in_a_replay(replayed):
    """A router that draws: seeds change the run, though not the requests."""
    replayed["deployment"] = {"num_devices": 2, "router": {"policy": "random"}}
    found = product.search(load_scenario(replayed))
    assert set(map(tuple, seeds_of(found).values())) == {(0, 1, 2, 3, 4)}
    assert not any(point["seedless"] for point in found.frontier["points"])


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
