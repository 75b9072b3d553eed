"""What is left out at both ends of a run, and that figures and books then are of the rest alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simslm
from simslm.errors import ScenarioError
from simslm.metrics.files import RunWriter
from simslm.metrics.steady import BATCH, FEWEST_BATCHES, Rule, counted, mser5, truncation

BURST = {
    "arrivals": {"process": "closed-loop", "concurrency": 24},
    "num_requests": 240,
    "prompt_tokens": {"dist": "fixed", "value": 1000},
    "output_tokens": {"dist": "uniform", "low": 20, "high": 60},
}


def summary(small: dict, **changes: Any) -> dict[str, Any]:
    return run(small, **changes).summary


def run(small: dict, **changes: Any) -> simslm.Result:
    return simslm.simulate(simslm.load_scenario({**small, **changes}), with_intervals=False)


@given(st.integers(1, 12), st.integers(0, 40), st.floats(2.0, 1e3))
def test_a_start_that_is_far_off_is_cut_where_it_ends(batches: int, more: int, height: float):
    around = 1.0 + 0.1 * (-1.0) ** np.arange(max(batches, FEWEST_BATCHES) + more)
    values = np.repeat(np.concatenate([np.full(batches, height), around]), BATCH)
    assert mser5(values) == batches * BATCH


def test_noise_is_seldom_refused_and_little_of_it_is_cut():
    rng = np.random.default_rng(0)
    cuts = [mser5(rng.exponential(1.0, 500)) for _ in range(300)]
    known = [cut for cut in cuts if cut is not None]
    assert len(known) >= 297
    assert np.mean(known) <= 0.04 * 500


@given(st.floats(1e-6, 1e6), st.integers(FEWEST_BATCHES * BATCH, 500))
def test_nothing_is_cut_where_nothing_changes(value: float, count: int):
    assert mser5(np.full(count, value)) == 0


@given(st.integers(FEWEST_BATCHES * BATCH, 400), st.floats(1e-3, 10.0))
def test_what_never_settles_has_no_cut(count: int, slope: float):
    assert mser5(slope * np.arange(count)) is None


@given(st.integers(0, FEWEST_BATCHES * BATCH - 1))
def test_too_few_have_no_cut(count: int):
    assert mser5(np.arange(count, dtype=float)) is None
    assert truncation([np.arange(count, dtype=float)], np.ones(count, dtype=bool)) is None


def test_the_statistic_is_the_published_one():
    """By its definition, one truncation after the other."""
    values = np.random.default_rng(5).exponential(1.0, 203) + np.where(np.arange(203) < 40, 3.0, 0.0)
    means = values[:200].reshape(40, 5).mean(axis=1)
    rest = [means[d:] for d in range(26)]
    statistic = [((each - each.mean()) ** 2).sum() / len(each) ** 2 for each in rest]
    assert mser5(values) == 5 * int(np.argmin(statistic))


def test_the_longest_cut_of_several_series_counts_and_gaps_are_passed_over():
    late = np.where(np.arange(200) < 30, 9.0, 1.0 + 0.1 * (-1.0) ** (np.arange(200) // 5))
    flat, every = np.ones(200), np.ones(200, dtype=bool)
    holes = np.where(np.arange(200) % 2, np.where(np.arange(200) < 30, 9.0, 1.0), np.nan)
    assert truncation([flat, late], every) == 30
    assert truncation([holes, flat], every) == 31  # of 100 known ones, 15 are off: those up to number 30
    assert truncation([flat, np.full(200, np.nan)], every) == 0


def test_the_end_is_not_taken_for_the_start():
    """A latency that falls when the load does at the end has the start cut all the same."""
    at = np.arange(200)
    around = 1.0 + 0.1 * (-1.0) ** (at // BATCH)
    values = np.where(at < 40, 2.0, np.where(at < 120, around, 0.0))
    assert mser5(values) is None
    assert truncation([values], at < 200) is None
    assert truncation([values], at < 120) == 40


def test_what_a_rule_leaves_out():
    arrival_s = np.array([0.0, 3.0, 1.0, 1.0, 2.0, 5.0])
    window = counted(arrival_s, 9.0, Rule(warmup_requests=2))
    assert window.mask.tolist() == [False, True, False, True, True, True]
    assert (window.begin_s, window.end_s, window.before, window.after) == (1.0, 9.0, 2, 0)
    window = counted(arrival_s, 9.0, Rule(warmup_s=1.5, cooldown_requests=1))
    assert window.mask.tolist() == [False, True, False, False, True, False]
    assert (window.begin_s, window.end_s, window.before, window.after) == (1.5, 5.0, 3, 1)
    window = counted(arrival_s, 9.0, Rule(cooldown_s=2.0))
    assert window.mask.tolist() == [True, False, True, True, True, False]
    assert (window.begin_s, window.end_s) == (0.0, 3.0)
    assert counted(arrival_s, 9.0, Rule(warmup_requests=9)).mask.sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", [{"warmup_requests": 64}, {"steady": "auto"}])
@pytest.mark.parametrize("num_requests", [128, 640, 2560])
def test_without_its_start_a_closed_loop_has_one_verdict(cases: Path, num_requests: int, rule: dict):
    """The first wave of 64 waits for one another, whatever comes after it."""
    scenario = simslm.load_scenario(
        cases / "traffic" / "closed-loop.yaml", [f"workload.num_requests={num_requests}"]
    )
    assert simslm.simulate(scenario, with_intervals=False).summary["slo"]["attainment"] < 0.99
    scenario = simslm.load_scenario(
        cases / "traffic" / "closed-loop.yaml",
        [f"workload.num_requests={num_requests}", *(f"metrics.{key}={value}" for key, value in rule.items())],
    )
    found = simslm.simulate(scenario, with_intervals=False).summary
    assert found["slo"]["attainment"] == 1.0
    assert found["ttft_s"]["p99"] == pytest.approx(0.163, abs=0.006)
    assert found["requests"]["finished"] == num_requests
    assert 64 <= found["counted"]["warmup_requests"] <= num_requests // 2 + 5


def test_the_figures_are_those_of_the_rows_that_count(small: dict):
    result = run(small, workload=BURST, metrics={"warmup_requests": 30, "cooldown_requests": 24})
    rows, found = result.requests, result.summary
    kept = rows[rows["counted"]]
    assert (len(rows), len(kept), found["counted"]["requests"]) == (240, 186, 186)
    assert found["requests"]["arrived"] == 240
    for key in ("ttft_s", "tpot_s", "e2e_s", "queue_s"):
        assert found[key]["mean"] == pytest.approx(kept[key].mean())
        assert found[key]["p99"] == pytest.approx(np.percentile(kept[key].dropna(), 99))
        assert found["population"][key] == kept[key].notna().sum()
    met = (kept["ttft_s"] <= 0.5) & ~(kept["tpot_s"] > 0.05)
    assert found["slo"]["attainment"] == pytest.approx(met.mean())
    begin_s, end_s = found["counted"]["begin_s"], found["counted"]["end_s"]
    inside = rows[(rows["finish_s"] >= begin_s) & (rows["finish_s"] <= end_s)]
    rates = found["throughput"]
    assert rates["requests_per_s"] == pytest.approx(len(inside) / (end_s - begin_s))
    assert rates["output_tokens_per_s"] == pytest.approx(inside["output_tokens"].sum() / (end_s - begin_s))
    assert found["slo"]["goodput_rps"] == pytest.approx(met.sum() / (end_s - begin_s))


def test_the_energy_is_that_of_the_time_that_counts(small: dict):
    result = run(small, workload=BURST, metrics={"warmup_s": 0.3, "cooldown_s": 0.2})
    found, iterations = result.summary, result.iterations
    begin_s, end_s = found["counted"]["begin_s"], found["counted"]["end_s"]
    start, stop = iterations["start_s"], iterations["start_s"] + iterations["duration_s"]
    inside = np.clip(np.minimum(stop, end_s) - np.maximum(start, begin_s), 0.0, None)
    busy = float((iterations["power_w"] * inside).sum())
    energy = found["energy"]
    assert energy["prefill_j"] + energy["decode_j"] == pytest.approx(busy)
    assert energy["total_j"] == pytest.approx(busy + energy["idle_j"])
    assert energy["mean_power_w"] == pytest.approx(energy["total_j"] / (end_s - begin_s))
    assert found["utilization"]["busy"] == pytest.approx(float(inside.sum()) / (end_s - begin_s))


@pytest.mark.parametrize("engine", [{}, {"speculative_config": {"num_speculative_tokens": 3}}])
def test_a_window_over_everything_changes_no_figure(small: dict, engine: dict):
    """Whatever is left out, the rest and it are the whole: the same books, kept another way."""
    if engine:
        small["cost"] = {"roofline": {}}
        engine["speculative_config"] |= {"model": "opt-125m", "acceptance_rate": 0.6}
    served = {"replicas_per_device": 2, "sharing": "mps"} if not engine else {}
    small["deployment"] = {**served, "engine": {**engine, "num_gpu_blocks": 200}}
    whole, windowed = summary(small), summary(small, metrics={"warmup_requests": 0})
    window = windowed.pop("counted")
    assert (window["requests"], window["warmup_requests"], window["cooldown_requests"]) == (50, 0, 0)

    def same(one: Any, other: Any) -> None:
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            for key in one:
                same(one[key], other[key])
        else:
            assert one == (pytest.approx(other, rel=1e-9, abs=1e-9) if isinstance(one, float) else other)

    same(whole, windowed)


def test_gaps_between_tokens_count_when_they_end_in_the_time_that_counts(small: dict):
    """Replayed token by token: one replica, so its decode iterations and its first tokens say all gaps."""
    small["deployment"] = {"engine": {"max_num_seqs": 1}}
    result = run(small, metrics={"warmup_requests": 20})
    rows = result.requests
    begin_s = result.summary["counted"]["begin_s"]
    iterations = result.iterations
    ends = (iterations["start_s"] + iterations["duration_s"])[iterations["decode_seqs"] > 0].to_numpy()
    times = np.sort(np.concatenate([ends, rows["first_token_s"]]))
    before = np.searchsorted(times, ends) - 1
    gaps = (ends - times[before])[ends > begin_s]
    assert result.summary["population"]["itl_s"] == len(gaps)
    assert result.summary["itl_s"]["mean"] == pytest.approx(gaps.mean())


def test_classes_are_counted_alike(small: dict):
    small["workload"]["classes"] = {"chat": {"slo": {"ttft_s": 0.3}}, "batch": {}}
    result = run(small, metrics={"warmup_requests": 10})
    rows, found = result.requests, result.summary
    for name in ("chat", "batch"):
        kept = rows[rows["counted"] & (rows["class"] == name)]
        assert found["classes"][name]["ttft_s"]["mean"] == pytest.approx(kept["ttft_s"].mean())
        assert found["classes"][name]["requests"]["arrived"] == (rows["class"] == name).sum()


def test_the_same_bytes_however_the_run_is_taken(small: dict, tmp_path: Path):
    """Written as it goes or kept, jumping or stepping."""
    scenario = simslm.load_scenario({**small, "metrics": {"steady": "auto", "cooldown_requests": 3}})
    kept = simslm.simulate(scenario, with_intervals=False)
    with RunWriter(tmp_path / "run") as writer:
        written = simslm.api.simulate(scenario, sink=writer, with_intervals=False, jump=False)
        writer.finish(written)
    assert written.summary == kept.summary
    counts = pq.read_table(tmp_path / "run" / "requests.parquet")["counted"].to_pylist()
    assert counts == kept.requests["counted"].tolist()


def test_without_the_key_there_is_no_column(small: dict):
    result = run(small)
    assert "counted" not in result.requests
    assert "counted" not in result.summary


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"warmup_requests": 3, "warmup_s": 1.0}, "warmup_requests and warmup_s say the same thing"),
        ({"warmup_s": 1.0, "steady": "auto"}, "warmup_s and steady"),
        ({"cooldown_requests": 3, "cooldown_s": 1.0}, "cooldown_requests and cooldown_s"),
        ({"warmup_requests": 50}, "leaves out 50 requests, and workload.num_requests is 50"),
        ({"warmup_requests": 25, "cooldown_requests": 25}, "leaves out 50 requests"),
        ({"steady": "mser"}, "auto"),
        ({"warmup": 3}, "did you mean"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(small: dict, metrics: dict, words: str):
    with pytest.raises(ScenarioError) as refused:
        simslm.load_scenario({**small, "metrics": metrics})
    assert words in str(refused.value)


@pytest.mark.parametrize("metrics", [{"warmup_s": 1e6}, {"cooldown_s": 1e6}])
def test_a_rule_that_leaves_nothing_is_refused_once_that_is_known(small: dict, metrics: dict):
    with pytest.raises(ScenarioError, match="metrics: leaves out all 50 requests that arrived"):
        run(small, metrics=metrics)


def test_a_cool_down_of_a_burst_leaves_no_time(small: dict):
    small["workload"]["arrivals"] = {"process": "all-at-once"}
    with pytest.raises(ScenarioError, match="leaves out all of the run's time"):
        run(small, metrics={"cooldown_requests": 10})


def test_a_workload_too_long_to_hold_is_refused(small: dict):
    small["workload"]["num_requests"] = (1 << 20) + 1
    with pytest.raises(ScenarioError, match="no more than 1,048,576 are held"):
        run(small, metrics={"steady": "auto"})


def test_the_cut_is_said_on_the_screen(tmp_path: Path, small: dict, capsys: pytest.CaptureFixture):
    from ruamel.yaml import YAML

    from simslm.cli.simulate import simulate

    YAML().dump({**small, "workload": BURST, "metrics": {"warmup_requests": 24}}, tmp_path / "loop.yaml")
    simulate(tmp_path / "loop.yaml", tmp_path / "out", [], None, False, False, False)
    assert "Left out: the first 24 of 240 requests; rates are of the time from" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Left out: the first 24 of 240 requests" in page
