"""A scenario served and simulated: what is the same on both sides has no error, and noise is that of the repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fidelity.conftest import TRACE

from simslm.api import Prepared, load_scenario, prepare, simulate
from simslm.errors import DeviceError, UsageError
from simslm.fidelity.live import Service, capacity_rps, check_servable, fitting, mean_running
from simslm.fidelity.repeats import repeats, write_load
from simslm.fidelity.replicas import interference, routed
from simslm.metrics.iterations import IterationTable
from simslm.report.repeats import figure, repeat_tables

pytestmark = pytest.mark.slow

LIVE = Path(__file__).parents[2] / "scenarios" / "live"
SCENARIO: dict[str, Any] = {
    "name": "live",
    "model": "opt-125m",
    "device": "cpu",
    "cost": {"trace": str(TRACE)},
    "workload": {
        "num_requests": 60,
        "arrivals": {"process": "poisson", "rate_rps": 4},
        "prompt_tokens": {"dist": "uniform", "low": 10, "high": 200},
        "output_tokens": {"dist": "uniform", "low": 1, "high": 40},
    },
    "deployment": {"engine": {"max_num_seqs": 8, "max_num_batched_tokens": 256, "num_gpu_blocks": 80}},
}


def read(more=()):
    return load_scenario(SCENARIO, [*more])


@dataclass
class Twin:
    """An engine that serves exactly as the simulation says, with all times stretched by a factor at each run."""

    factors: list[float]
    energy_j: float | None = None
    other_load: float | None = 0.25

    def __call__(self, prepared: Prepared) -> Twin:
        factor, *self.factors = self.factors
        result, kept = simulate(prepared.scenario), fitting(prepared)
        twin = replace(self)
        twin.requests = {name: column[kept] for name, column in result.request_columns.items()}
        for name in ("first_scheduled_s", "first_token_s", "finish_s"):
            waited = twin.requests[name] - twin.requests["arrival_s"]
            twin.requests[name] = twin.requests["arrival_s"] + factor * waited
        twin.requests["rejected"] = twin.requests["status"] == 1
        twin.iterations = _iterations(result)
        twin.gaps_s = factor * _gaps(result)
        return twin


def _iterations(result):
    tables = [
        table.columns | {"replica": np.full(len(table), number)} for number, table in enumerate(result.tables)
    ]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _gaps(result):
    """Values whose spread is that of the simulation's inter-token latencies."""
    found = []
    for _, window, priced in result.windows:
        table = priced.columns
        ends = table["start_s"] + table["duration_s"]
        emitting = table["decoding"] > 0
        between = np.diff(ends[emitting], prepend=np.nan)
        again = (table["decoding"] - table["starting"])[emitting].astype(int)
        found += [np.repeat(between, again), window.gaps]
    return np.concatenate(found)


def served(factors, *sets, **twin):
    service = Service(lambda more: read([*sets, *more]), (), len(factors))
    service.catch_up(Twin(list(factors), **twin))
    return service.compared("twin 1")


def test_a_twin_of_the_simulation_has_no_error_in_anything():
    (run,) = served([1.0])
    errors = run.comparison.error
    assert {"output_tokens_per_s", "ttft_p99_s", "tpot_p50_s", "itl_p50_s", "e2e_mean_s", "queue_max_s", "kv_peak",
            "preemptions", "duration_s"} <= set(errors)  # fmt: skip
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=1e-9)


TWO = ("deployment.replicas_per_device=2", "deployment.sharing=time-slice", "workload.arrivals.rate_rps=12")


def test_a_twin_of_two_replicas_has_no_error_either(tmp_path: Path):
    """What is said of both: one run, one energy, running sequences of all; no cost of an iteration by itself."""
    runs = served([1.0, 1.0], *TWO)
    errors = runs[0].comparison.error
    assert {"output_tokens_per_s", "ttft_p99_s", "itl_p50_s", "kv_peak", "duration_s"} <= set(errors)
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=1e-9)
    setting = runs[0].comparison.run
    assert (setting.replicas, setting.sharing) == (2, "time-slice")
    (load,) = repeats(runs)
    assert load["mean_running_seqs"]["measured"] == pytest.approx(load["mean_running_seqs"]["simulated"])
    assert (load["iterations"], load["replicas"], load["interference"]) == (None, 2, "modelled")
    (table,) = repeat_tables({"repeats": [load]})
    assert "2 replicas, their interference modelled" in table.facts
    assert not [fact for fact in table.facts if "by the trace" in fact]
    write_load(tmp_path / "load", runs)
    for name in ("requests", "iterations"):
        simulated, live = (
            pd.read_parquet(tmp_path / "load" / f"{each}.parquet") for each in (name, f"{name}_live")
        )
        for _, one in live.groupby("repeat"):
            assert one.replica.tolist() == simulated.replica.tolist()
        assert {*simulated.replica} == {0, 1}


def test_sequences_that_run_are_those_of_all_replicas_while_any_is_busy():
    """Replica 0 runs two from 0 to 2 s, replica 1 one from 1 to 3 s and three from 5 to 6 s: busy for 4 s."""
    columns = [([0.0, 1.0], [1.0, 1.0], [2, 2]), ([1.0, 5.0], [2.0, 1.0], [1, 3])]
    names = ("start_s", "duration_s", "running")
    tables = [
        IterationTable(
            dict(zip(names, map(np.array, each), strict=True)), None, np.zeros(2), np.ones(2, bool)
        )
        for each in columns
    ]
    assert mean_running(tables) == pytest.approx((2 * 2 + 1 * 2 + 3 * 1) / 4)


@pytest.mark.parametrize("router", ["round-robin", "random"])
def test_requests_go_where_the_simulation_sends_them(router):
    """Those that can never be served are sent nowhere, and do not count as a turn."""
    long = "workload.prompt_tokens={dist: uniform, low: 10, high: 1900}"
    scenario = read([*TWO, "deployment.replicas_per_device=3", f"deployment.router={router}", long])
    replica = simulate(scenario).request_columns["replica"]
    assert {*replica} == {-1, 0, 1, 2}
    np.testing.assert_array_equal(routed(prepare(scenario)), replica)


def test_a_replica_alone_gets_all_that_fit():
    assert {*routed(prepare(read()))} == {0}
    assert interference(prepare(read())) is None


@pytest.mark.parametrize(
    "router",
    ["join-shortest-queue", "least-outstanding", "power-of-two", "prefix-affinity", "session-affinity"],
)
def test_routers_that_look_at_replicas_are_refused(router):
    prepared = prepare(read([*TWO, f"deployment.router={router}"]))
    with pytest.raises(
        UsageError, match=rf"the router {router} looks at the replicas.*random and round-robin can"
    ):
        check_servable(prepared, scaled=True)
    check_servable(prepare(read([f"deployment.router={router}"])), scaled=True)


def test_a_device_that_fails_keeps_the_runs_that_were_done():
    service, twin = Service(read, (), 3), Twin([1.0])

    def serve(prepared):
        if not twin.factors:
            raise DeviceError("a replica ended before its time")
        return twin(prepared)

    with pytest.raises(DeviceError):
        service.catch_up(serve)
    assert [run.number for run in service.compared("twin 1")] == [1]


def test_requests_that_never_fit_are_rejected_on_both_sides():
    (run,) = served([1.0], "workload.prompt_tokens={dist: uniform, low: 10, high: 1900}")
    simulated = run.result.request_columns
    assert 0 < (run.requests["status"] == 1).sum() < 60
    for name in ("status", "replica", "first_token_s", "ttft_s", "queue_s"):
        np.testing.assert_array_equal(run.requests[name], simulated[name], err_msg=name)
    np.testing.assert_allclose(run.requests["tpot_s"], simulated["tpot_s"])
    assert run.comparison.error["requests_per_s"] == pytest.approx(0)


def test_the_error_is_that_of_the_mean_and_the_noise_that_of_the_repeats():
    runs = served([1.0, 1.5, 2.0])
    (load,) = repeats(runs)
    ttft = load["metrics"]["ttft_mean_s"]
    assert ttft["measured"] == pytest.approx(1.5 * ttft["simulated"])
    assert ttft["error"] == pytest.approx(1 / 1.5 - 1)
    assert ttft["noise"] == pytest.approx(0.5 / 1.5)
    assert load["runs"] == ["as stated, repeat 1", "as stated, repeat 2", "as stated, repeat 3"]
    assert load["other_load"] == [0.25] * 3
    assert load["mean_running_seqs"]["measured"] == pytest.approx(load["mean_running_seqs"]["simulated"])
    table = runs[0].result.tables[0].columns
    assert mean_running(runs[0].result.tables) == pytest.approx(
        (table["running"] * table["duration_s"]).sum() / table["duration_s"].sum()
    )


def test_what_the_trace_is_off_by_is_told_apart_from_the_schedule():
    runs = served([1.0, 1.0])
    (load,) = repeats(runs)
    assert load["iterations"] == pytest.approx({"total_error": 0.0, "median_error": 0.0}, abs=2e-3)
    for run in runs:
        (table,) = run.iterations
        table.columns["duration_s"] = table.columns["duration_s"] * 1.25
    (load,) = repeats(runs)
    assert load["iterations"] == pytest.approx({"total_error": -0.2, "median_error": -0.2}, abs=2e-3)


def test_one_run_tells_nothing_of_noise():
    runs = served([2.0])
    (load,) = repeats(runs)
    assert load["metrics"]["ttft_mean_s"]["noise"] is None


def planned(read, shares):
    """The loads of a service, as it plans them before the first run."""
    told = []
    service = Service(read, shares, 1, on_loads=told.extend)
    with pytest.raises(KeyboardInterrupt):
        service.catch_up(stop)
    assert service.runs == 0
    assert service.compared("nobody") == []
    return told


def stop(prepared):
    raise KeyboardInterrupt


def test_loads_are_shares_of_what_is_served_when_all_are_there_at_once():
    found = planned(read, [0.25, 0.5])
    assert [load.name for load in found] == ["load 0.25", "load 0.5"]
    result = load_scenario(SCENARIO, ["workload.arrivals={process: all-at-once}"])
    capacity = simulate(result).summary["throughput"]["requests_per_s"]
    assert [load.rate_rps for load in found] == pytest.approx([0.25 * capacity, 0.5 * capacity])
    lengths = [load.prepared.requests.output_tokens for load in found]
    assert (lengths[0] == lengths[1]).all()
    gaps = [np.diff(load.prepared.requests.arrival_s) for load in found]
    np.testing.assert_allclose(gaps[0], 2 * gaps[1])


def test_the_capacity_of_a_duration_is_that_of_its_requests():
    more = ("workload.num_requests=null", "workload.duration_s=10")
    scenario = read(more)
    count = len(prepare(scenario).requests)
    fixed = read([f"workload.num_requests={count}"])
    found = capacity_rps(lambda extra: read([*more, *extra]), scenario)
    assert found == capacity_rps(lambda extra: read([f"workload.num_requests={count}", *extra]), fixed)


def test_drift_spreads_over_the_loads_and_runs_come_load_by_load():
    order = []
    service = Service(read, [0.25, 0.5], 2, lambda load, number: order.append((load.name, number)))
    service.catch_up(Twin([1.0] * 4))
    assert order == [("load 0.25", 1), ("load 0.5", 1), ("load 0.25", 2), ("load 0.5", 2)]
    runs = service.compared("twin 1")
    assert [(run.load.name, run.number) for run in runs] == sorted(order)
    assert [run.comparison.run.arrivals for run in runs[::2]] == [
        f"poisson:{run.load.rate_rps:.6g}" for run in runs[::2]
    ]


@pytest.mark.parametrize(
    ("repeats", "most", "due"),
    [
        (3, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (2, 2, [0, 2]),
        (2, 1, [2]),
        (5, 3, [0, 2, 5]),
    ],
)
def test_repeats_spread_over_the_passes_of_a_campaign(repeats, most, due):
    """After the first pass there is no trace to tell loads by, unless it is the last."""
    service, twin = Service(read, (), repeats), Twin([1.0] * repeats)
    found = []
    for passes in range(1, most + 1):
        service.catch_up(twin, passes, most)
        found.append(service.runs)
    assert found == due


def test_the_simulation_is_that_of_the_trace_at_the_end():
    """Rates stay those of the first run; the cost is what the trace says when all is over."""
    cost = {"efficiency": 0.1}

    def traced(more=()):
        return load_scenario(SCENARIO | {"cost": {"roofline": dict(cost)}}, [*more])

    service = Service(traced, [0.5], 1)
    service.catch_up(Twin([1.0]))
    (before,) = service.compared("twin 1")
    assert before.comparison.error["ttft_p50_s"] == pytest.approx(0)
    cost["efficiency"] = 0.2
    (after,) = service.compared("twin 1")
    assert after.load.rate_rps == before.load.rate_rps
    assert after.comparison.error["tpot_p50_s"] < -0.3


def test_runs_before_an_interruption_are_compared():
    service = Service(read, (), 3)
    service.catch_up(Twin([1.0]), 2, 4)
    assert service.runs == 1
    with pytest.raises(KeyboardInterrupt):
        service.catch_up(stop, 4, 4)
    assert len(service.compared("twin 1")) == 1


def test_energy_is_compared_where_it_is_measured():
    (run,) = served([1.0], energy_j=600.0)
    measured = run.comparison.run.measured
    assert measured["energy_j"] == 600.0
    assert measured["power_mean_w"] == pytest.approx(600.0 / measured["duration_s"])
    assert "energy_j" not in run.comparison.error  # the trace has none


def test_the_files_of_a_load_hold_both_sides(tmp_path: Path):
    runs = served([1.0, 2.0])
    write_load(tmp_path / "load", runs)
    simulated, live = (
        pd.read_parquet(tmp_path / "load" / f"{name}.parquet") for name in ("requests", "requests_live")
    )
    assert live.columns.tolist() == ["repeat", *simulated.columns]
    first = live[live.repeat == 1].drop(columns="repeat").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, simulated)
    later = live[live.repeat == 2].reset_index(drop=True)
    np.testing.assert_allclose(later.ttft_s, 2 * simulated.ttft_s)
    iterations = pd.read_parquet(tmp_path / "load" / "iterations_live.parquet")
    assert iterations.groupby("repeat").size().tolist() == [len(runs[0].iterations[0])] * 2


def test_what_the_page_shows_is_marked_beyond_the_noise():
    runs = served([1.0, 1.01, 1.02])
    (table,) = repeat_tables({"repeats": repeats(runs)})
    rows = {row.column: row for row in table.rows}
    assert not rows["ttft_mean_s"].beyond
    assert rows["ttft_mean_s"].error == "-0.99 %"
    runs = served([2.0, 2.01, 2.02])
    (table,) = repeat_tables({"repeats": repeats(runs)})
    assert {row.column: row for row in table.rows}["ttft_mean_s"].beyond
    assert "served 3 times" in table.facts
    assert repeat_tables({}) == []


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [("ttft_p50_s", 0.0123, "12.3 ms"), ("output_tokens_per_s", 1234.5, "1,234"), ("preemptions", 3.0, "3")],
)
def test_figures_have_their_units(column, value, shown):
    assert figure(column, value).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_what_the_loop_does_not_do_is_said_all_at_once():
    late = "deployment.engine.disable_async_output_proc=false"
    with pytest.raises(UsageError, match="no outputs looked at late"):
        check_servable(prepare(read([late])), scaled=False)
    for more, words in (
        ("num_devices=2", "one device only"),
        ("groups=[{name: a}, {name: b, replicas_per_device: 2}]", "one group only"),
        ("sharing=sm-partition", r"no parts of the multiprocessors \(sharing sm-partition\)"),
    ):
        with pytest.raises(UsageError, match=words):
            check_servable(prepare(read([*TWO, f"deployment.{more}"])), scaled=False)
    sets = ("deployment.engine.preemption=swap", "workload.timeout_s=5")
    with pytest.raises(UsageError, match="no preemption by swap, no clients that leave"):
        check_servable(prepare(read(sets)), scaled=False)
    at_once = ("workload.arrivals={process: all-at-once}",)
    check_servable(prepare(read(at_once)), scaled=False)
    with pytest.raises(UsageError, match="--load"):
        check_servable(prepare(read(at_once)), scaled=True)


@pytest.mark.parametrize("name", ["opt-125m", "smollm2-135m"])
def test_the_live_scenarios_keep_several_sequences_running_at_every_load(name):
    loads = planned(lambda more: load_scenario(LIVE / f"{name}.yaml", [*more]), [0.5, 0.8, 0.95])
    results = [simulate(load.prepared.scenario) for load in loads]
    running = [mean_running(result.tables) for result in results]
    assert min(running) >= 4
    assert running == sorted(running)
    assert min(len(load.prepared.requests) for load in loads) >= 100
    assert min(result.summary["coverage"]["in_domain_time"] for result in results) > 0.99


@pytest.mark.parametrize("path", sorted(LIVE.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_live_scenarios_can_be_served(path):
    """Every request fits, and the blocks are stated: what a catalogue's device holds is not what is free."""
    prepared = prepare(load_scenario(path))
    check_servable(prepared, scaled=True)
    assert fitting(prepared).all()
    assert prepared.groups[0].spec.engine.num_gpu_blocks
