"""Fits to recorded traffic: lengths, burstiness, what one half says of the other, and what serving makes of it."""

from pathlib import Path

import numpy as np
import pytest
from workload.shipped import PRESETS

import simslm.api
from simslm.catalog.presets import load_preset, preset_names
from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import generate
from simslm.workload.fitted import compared, distance, drawn, fitted, held_out
from simslm.workload.readers import read_pieces
from simslm.workload.traffic import Traffic, figures, generated_traffic, recorded_traffic

LONG = {name: shipped.slice for name, shipped in PRESETS.items() if name != "burstgpt-1"}
"""Presets fitted to a thousand requests or more."""


@pytest.fixture(scope="module")
def recorded(workloads):
    """The traffic of a slice, read once."""
    known = {}

    def read(name):
        if name not in known:
            known[name] = recorded_traffic(read_pieces(workloads / name))
        return known[name]

    return read


def traffic(count=4000, seed=0, **changes):
    given = {
        "num_requests": count,
        "arrivals": {"process": "poisson", "rate_rps": 8},
        "prompt_tokens": {"dist": "lognormal", "mean": 256, "p95": 768},
        "output_tokens": {"dist": "uniform", "low": 1, "high": 200},
    } | changes
    return generated_traffic([generate(Workload.model_validate(given), seed, 4096, Path())])


def test_figures_are_those_of_the_definitions():
    arrival_s = np.array([0.0, 0.5, 0.75, 2.0, 2.1, 2.9, 4.0])
    found = figures(Traffic(arrival_s, np.arange(1, 8), np.arange(7, 0, -1)))
    gaps = np.diff(arrival_s)
    assert found["rate_rps"] == 6 / 4
    assert found["gap_cv"] == pytest.approx(gaps.std() / gaps.mean())
    assert found["peak_to_mean_1s"] == 3 / (6 / 4)
    assert found["dispersion_1s"] == np.var([3, 0, 3, 0]) / 1.5
    assert found["peak_to_mean_60s"] is None
    assert found["rank_correlation"] == pytest.approx(-1)
    assert found["prompt_tokens"] == {"min": 1, "mean": 4, "p50": 4, "p90": 7, "p95": 7, "p99": 7, "max": 7}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_figures_of_hardly_anything_are_none(count):
    found = figures(Traffic(np.zeros(count), np.ones(count, int), np.ones(count, int)))
    assert found["requests"] == count
    assert all(
        found[name] is None
        for name in ("rate_rps", "gap_cv", "peak_to_mean_1s", "rank_correlation", "tick_s")
    )


def test_the_distance_of_samples_is_that_of_scipy():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 30, 300), rng.integers(3, 40, 500)
    assert distance(one, other) == pytest.approx(ks_2samp(one, other).statistic)


def test_a_poisson_traffic_is_found_to_be_one():
    found = fitted(traffic(arrivals={"process": "poisson", "rate_rps": 8}))
    assert found["arrivals"]["process"] == "rate-curve"
    assert found["arrivals"]["gaps"] == {"dist": "exponential"}
    assert found["arrivals"]["rate_rps"] == pytest.approx(8, rel=0.05)
    assert "correlation" not in found or abs(found["correlation"]) < 0.05


@pytest.mark.parametrize("process", ["gamma", "weibull"])
@pytest.mark.parametrize("cv", [0.4, 2.0])
def test_a_renewal_process_is_found_with_its_spread(process, cv):
    given = traffic(20_000, arrivals={"process": process, "rate_rps": 8, "cv": cv})
    found = fitted(given)["arrivals"]["gaps"]
    assert found["dist"] == process
    assert found["cv"] == pytest.approx(cv, rel=0.12)


def test_a_clock_that_ticks_is_found_and_made_again():
    curve = {"process": "rate-curve", "rate_rps": 4, "shape": [1, 2], "step_s": 300, "tick_s": 3.0}
    given = traffic(8000, arrivals=curve)
    found = fitted(given)
    assert found["arrivals"]["tick_s"] == 3.0
    assert compared(given, drawn(found)).off("gap_cv") == pytest.approx(0, abs=0.05)


def test_lengths_that_change_are_fitted_as_kinds_of_requests():
    short, long = traffic(3000, seed=1), traffic(3000, seed=2, prompt_tokens={"dist": "fixed", "value": 3000})
    joined = Traffic(
        np.concatenate((short.arrival_s, long.arrival_s + short.span_s + 0.1)),
        np.concatenate((short.prompt_tokens, long.prompt_tokens)),
        np.concatenate((short.output_tokens, long.output_tokens)),
    )
    found = fitted(joined)
    assert found["arrivals"]["process"] == "clients"
    redrawn = drawn(found, least=len(joined))
    half = redrawn.arrival_s < joined.span_s / 2
    assert np.mean(redrawn.prompt_tokens[half] == 3000) < 0.15
    assert np.mean(redrawn.prompt_tokens[~half] == 3000) > 0.85


@pytest.mark.parametrize("lengths", [(10, 3000), (10, 3000, 3000)])
def test_lengths_of_two_sizes_are_two_kinds(lengths):
    parts = [traffic(1000, prompt_tokens={"dist": "fixed", "value": n}, output_tokens={"dist": "fixed", "value": 5})
             for n in lengths]  # fmt: skip
    arrival_s = np.concatenate([each.arrival_s + i * 200 for i, each in enumerate(parts)])
    joined = Traffic(arrival_s, *(np.concatenate([getattr(each, name) for each in parts])
                                  for name in ("prompt_tokens", "output_tokens")))  # fmt: skip
    found = fitted(joined)["arrivals"]
    assert found["process"] == "clients"
    values = {client["prompt_tokens"]["value"] for client in found["clients"]}
    assert values == {10, 3000}


def test_equal_lengths_and_no_times_are_fitted_too():
    fixed = {"dist": "fixed", "value": 64}
    found = fitted(traffic(prompt_tokens=fixed, output_tokens=fixed))
    assert (found["prompt_tokens"], found["output_tokens"]) == (fixed, fixed)
    given = traffic(arrivals={"process": "all-at-once"})
    untimed = Traffic(given.arrival_s, given.prompt_tokens, given.output_tokens, timed=False)
    assert "arrivals" not in fitted(untimed)


def test_too_few_requests_are_refused():
    with pytest.raises(ScenarioError, match="9 requests are too few to fit a workload to; at least 10"):
        fitted(traffic(9))


@pytest.mark.parametrize("name", LONG)
def test_a_fit_meets_the_traffic_it_was_made_of(name, recorded):
    whole = recorded(LONG[name])
    good = compared(whole, drawn(fitted(whole)))
    assert max(good.prompt_ks, good.output_ks) <= 0.02
    if whole.timed:
        assert abs(good.off("gap_cv")) <= 0.16
        assert abs(good.off("rate_rps")) <= 0.03
        assert abs(good.off("peak_to_mean_60s")) <= 0.1


DRIFTS = ("azure-2023-conv", "mooncake-synthetic", "ragpulse")
"""Traces of which the two halves have other lengths: docs/workloads.md says how much."""


@pytest.mark.parametrize("name", LONG)
def test_a_fit_to_the_first_half_meets_the_second(name, recorded):
    halves, windows = held_out(recorded(LONG[name]))
    distances = halves.fit.prompt_ks, halves.fit.output_ks
    if name in DRIFTS:
        own = halves.own.prompt_ks, halves.own.output_ks
        assert max(own) > 0.05
        assert max(abs(fit - residue) for fit, residue in zip(distances, own, strict=True)) <= 0.01
    else:
        assert max(distances) <= 0.05
    assert max(windows.fit.prompt_ks, windows.fit.output_ks) <= 0.05
    off = halves.fit.off("gap_cv")
    assert off is None or abs(off) <= 0.15


def scenario(workload, seed=0):
    return simslm.api.load_scenario(
        {
            "schema_version": 1,
            "name": "fitted",
            "seed": seed,
            "model": "llama-3.2-1b",
            "device": "l4",
            "cost": {"roofline": {}},
            "workload": workload,
            "deployment": {"engine": {"max_num_seqs": 64}},
        }
    )


def ttft_p99(workload, seed=0):
    return simslm.api.simulate(scenario(workload, seed), with_intervals=False).summary["ttft_s"]["p99"]


@pytest.mark.slow
@pytest.mark.parametrize("speed", [0.5, 1.0])
def test_fitted_conversations_are_served_like_those_recorded(speed, workloads):
    """At the trace's own rate one L4 is about to saturate: batches reach 64 at times."""
    replay = {"path": str(workloads / "azure2023_conv.csv"), "time_scale": 1 / speed}
    recorded = ttft_p99({"replay": replay})
    preset = load_preset("azure-2023-conv").workload["arrivals"]
    slower = [client | {"step_s": client["step_s"] / speed} for client in preset["clients"]]
    arrivals = preset | {"rate_rps": preset["rate_rps"] * speed, "clients": slower}
    for seed in range(2):
        assert ttft_p99({"preset": "azure-2023-conv", "arrivals": arrivals}, seed) == pytest.approx(
            recorded, rel=0.2
        )


def test_every_preset_is_in_the_table():
    assert set(preset_names()) == set(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_source_and_is_a_workload(name):
    preset = load_preset(name)
    assert preset.what == PRESETS[name].what
    assert {"url", "licence", "cite", "origin", "sha256", "requests"} <= set(preset.source)
    arrivals = {} if "arrivals" in preset.workload else {"arrivals": {"process": "all-at-once"}}
    found = scenario({"preset": name, "num_requests": 50} | arrivals).workload
    assert found.preset == name
    assert len(generate(found, 0, 1 << 20, Path())) == 50


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_is_fitted_to_its_slice(name, recorded):
    preset = load_preset(name)
    refitted = fitted(recorded(PRESETS[name].slice))
    assert refitted["num_requests"] == preset.workload["num_requests"] == preset.source["requests"]
    assert refitted == preset.workload
