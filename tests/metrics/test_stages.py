"""Stages say when a request was prefilled and when it decoded, whether a run is taken in one window or in many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import simslm.sim.log.replica
from simslm.api import load_scenario, simulate
from simslm.metrics.files import RunWriter
from simslm.metrics.result import Result

TIGHT = {"engine": {"num_gpu_blocks": 60, "max_num_seqs": 64, "max_num_batched_tokens": 128}}
"""So few blocks that sequences are preempted, and prompts in several chunks."""


def written(mapping: dict, directory: Path) -> tuple[Result, dict[str, np.ndarray]]:
    """A run streamed to files, and its stages sorted by request and time."""
    with RunWriter(directory) as writer:
        result = simulate(load_scenario(mapping), sink=writer)
        writer.finish(result)
    columns = pq.read_table(directory / "stages.parquet").to_pydict()
    stages = {name: np.array(values) for name, values in columns.items()}
    order = np.lexsort((stages["end_s"], stages["start_s"], stages["request_id"]))
    return result, {name: values[order] for name, values in stages.items()}


DEPLOYMENTS = {
    "plain": {},
    "tight": TIGHT,
    "swapping": {"engine": TIGHT["engine"] | {"preemption": "swap"}},
    "orca": {"engine": {"batching": {"policy": "orca"}, "max_num_seqs": 8}},
    "prefill-first": {
        "engine": {"batching": {"policy": "prefill-first"}, "num_gpu_blocks": 60, "max_num_seqs": 32}
    },
    "static": {"engine": {"batching": {"policy": "static", "returns": "request"}, "max_num_seqs": 8}},
    "replicas": {"replicas_per_device": 2, "sharing": "mps", "engine": TIGHT["engine"]},
}


@pytest.fixture(params=DEPLOYMENTS)
def scenario(small: dict, request: pytest.FixtureRequest) -> dict:
    small["workload"]["prompt_tokens"]["max"] = 500
    return small | {"deployment": DEPLOYMENTS[request.param]}


def test_stages_tile_the_life_of_a_request(scenario: dict, tmp_path: Path):
    result, stages = written(scenario, tmp_path)
    requests = result.requests.set_index("request_id")
    if scenario["deployment"] == TIGHT:
        assert requests["preemptions"].sum() > 0
    for number, row in requests.iterrows():
        mine = {name: values[stages["request_id"] == number] for name, values in stages.items()}
        prefill = mine["kind"] == "prefill"
        assert mine["start_s"][0] == row["first_scheduled_s"]
        assert mine["end_s"][-1] == row["finish_s"]
        assert row["first_token_s"] in mine["end_s"][prefill]
        assert np.all(mine["start_s"][1:] >= mine["end_s"][:-1])
        assert np.all(mine["end_s"] > mine["start_s"])
        assert set(mine["replica"]) == {row["replica"]}
        emitted = mine["iterations"][~prefill].sum() + 1
        if row["preemptions"] == 0:
            assert mine["tokens"].sum() == row["prompt_tokens"]
            assert emitted == row["output_tokens"]
        else:
            assert emitted <= row["output_tokens"] <= emitted + row["preemptions"]


@pytest.mark.slow
def test_many_windows_leave_the_same_stages_as_one(
    scenario: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, once = written(scenario, tmp_path / "once")
    monkeypatch.setattr(simslm.sim.log.replica, "WINDOW_BYTES", 500)
    _, often = written(scenario, tmp_path / "often")
    assert all(np.array_equal(once[name], often[name]) for name in once)


def test_an_interrupted_run_keeps_the_stages_that_go_on(
    small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small["workload"] |= {"num_requests": 5, "arrivals": {"process": "all-at-once"}}
    small["workload"]["output_tokens"] = {"dist": "fixed", "value": 400}

    monkeypatch.setattr(simslm.sim.log.replica, "WINDOW_BYTES", 300)
    stop: list[Callable[[], None]] = []

    class Stopping(RunWriter):
        def take(self, *window: Any) -> None:
            super().take(*window)
            stop[0]()

    with Stopping(tmp_path) as writer:
        result = simulate(load_scenario(small), sink=writer, on_start=stop.append)
        writer.finish(result)
    assert result.log.interrupted
    stages = pq.read_table(tmp_path / "stages.parquet").to_pandas()
    going_on = stages[stages["kind"] == "decode"]
    iterations = pq.read_table(tmp_path / "iterations.parquet").to_pandas()
    assert len(going_on) == 5
    assert set(going_on["end_s"]) == {iterations["start_s"].iloc[-1] + iterations["duration_s"].iloc[-1]}
    assert set(going_on["iterations"]) == {(iterations["decode_seqs"] > 0).sum()}


def test_gaps_are_exact_points_of_their_distribution(small: dict, tmp_path: Path):
    result, _ = written(small, tmp_path)
    gaps = pq.read_table(tmp_path / "gaps.parquet").to_pandas()
    assert gaps["share"].iloc[-1] == 1
    assert gaps["itl_s"].iloc[-1] == result.summary["itl_s"]["max"]
    assert gaps["itl_s"].is_monotonic_increasing
    assert len(gaps) <= 500
    middle = gaps["itl_s"][gaps["share"] >= 0.5].iloc[0]
    assert middle == pytest.approx(result.summary["itl_s"]["p50"], rel=1e-3)
