"""Runs are paired where they can be, intervals hold what they say, and the rest is said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simslm.comparison import compare
from simslm.comparison.compare import configurations
from simslm.comparison.delta import Delta
from simslm.comparison.sections import OF_REQUESTS, SECTIONS, Sectioned, needed
from simslm.errors import UsageError
from simslm.metrics.definitions import FIGURES

PLACES = [f"runs/{letter}" for letter in "abcdefgh"]


def against(*runs):
    return compare(runs, PLACES[: len(runs)])


def draws(seed: int, count: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1.0, count)


def correlated(seed: int, count: int, strength: float = 0.9) -> np.ndarray:
    """An autoregressive series of mean 5, as the waiting times of one queue are."""
    noise = np.random.default_rng(seed).normal(size=count)
    values = np.empty(count)
    last = 0.0
    for i in range(count):
        last = strength * last + noise[i] * np.sqrt(1 - strength**2)
        values[i] = 5.0 + last
    return values


def test_the_same_run_twice_is_the_same(make_run):
    (contrast,) = against(make_run(draws(1)), make_run(draws(1))).contrasts
    assert contrast.pairing.kind == "requests"
    assert contrast.changes == ()
    assert {delta.verdict for delta in contrast.deltas} == {"same", "unknown"}
    for latency in contrast.latencies:
        assert latency.faster == latency.slower == 0
        assert not latency.differences_s.any()


def test_every_figure_is_there_once(make_run):
    (contrast,) = against(make_run(draws(1)), make_run(draws(2))).contrasts
    assert tuple(delta.path for delta in contrast.deltas) == FIGURES
    with pytest.raises(KeyError):
        contrast.delta("ttft_s.p98")


def test_a_constant_shift_is_certain_when_requests_are_paired(make_run):
    (contrast,) = against(make_run(draws(1)), make_run(draws(1) + 0.25)).contrasts
    for name in ("mean", "p50", "p90", "p95", "p99"):
        delta = contrast.delta(f"ttft_s.{name}")
        assert delta.delta == pytest.approx(0.25)
        assert delta.interval == pytest.approx((0.25, 0.25))
        assert delta.verdict == "worse"
    ttft = contrast.latencies[0]
    assert (ttft.metric, ttft.pairs, ttft.faster, ttft.slower) == ("ttft_s", 1000, 0, 1)
    assert ttft.differences_s == pytest.approx(np.full(101, 0.25))


def test_pairing_narrows_what_other_requests_would_leave_open(make_run):
    first, second = make_run(draws(1)), make_run(draws(1) + 0.02)
    other = make_run(draws(1) + 0.02, lengths=np.arange(2, 1002))
    (paired,), (unpaired,) = against(first, second).contrasts, against(first, other).contrasts
    assert unpaired.pairing.kind == "unpaired"
    assert "differ in length" in unpaired.pairing.why
    assert unpaired.latencies == ()
    assert paired.delta("ttft_s.mean").verdict == "worse"
    assert unpaired.delta("ttft_s.mean").verdict == "unclear"


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", ["mean", "p90"])
def test_intervals_hold_the_true_difference_as_often_as_they_say(make_run, paired, name):
    """200 pairs of autocorrelated runs that do not differ: t on single requests would hold 0 in about a third."""
    held = 0
    lengths = None if paired else np.arange(2, 1502)
    for seed in range(200):
        runs = make_run(correlated(2 * seed, 1500)), make_run(correlated(2 * seed + 1, 1500), lengths=lengths)
        low, high = against(*runs).contrasts[0].delta(f"ttft_s.{name}").interval
        held += low <= 0 <= high
    assert stats.binomtest(held, 200, 0.95).pvalue > 0.001


def test_seeds_are_paired_with_seeds(make_run):
    before = [make_run(draws(seed), seed=seed, limit=1) for seed in range(4)]
    after = [make_run(draws(seed) * 1.1 + 0.01 * seed, seed=seed, limit=2) for seed in range(4)]
    (contrast,) = compare([*before, *after], PLACES).contrasts
    assert contrast.pairing.kind == "seeds"
    assert contrast.pairing.count == 4
    assert [change.path for change in contrast.changes] == ["deployment.limit"]
    delta = contrast.delta("ttft_s.mean")
    first, second = ([run.summary["ttft_s"]["mean"] for run in each] for each in (before, after))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert delta.interval == pytest.approx((expected.low, expected.high))
    assert delta.baseline == pytest.approx(np.mean(first))
    assert delta.delta == pytest.approx(np.mean(second) - np.mean(first))
    assert contrast.delta("itl_s.p99").verdict == "unknown"


def test_seeds_that_one_lacks_are_left_out_and_that_is_said(make_run):
    runs = [make_run(draws(seed), seed=seed, limit=1) for seed in range(3)]
    runs += [make_run(draws(seed), seed=seed, limit=2) for seed in (0, 2)]
    (contrast,) = compare(runs, PLACES[:5]).contrasts
    assert contrast.pairing.count == 2
    assert "1 runs under seeds that one of them lacks are left out" in contrast.pairing.why


def test_other_seeds_are_independent_runs(make_run):
    runs = [make_run(draws(seed), seed=seed, limit=1) for seed in (0, 1, 2)]
    runs += [make_run(draws(seed) + 1, seed=seed, limit=2) for seed in (3, 4, 5)]
    (contrast,) = compare(runs, PLACES[:6]).contrasts
    assert contrast.pairing.kind == "unpaired"
    means = [run.summary["ttft_s"]["mean"] for run in runs]
    expected = stats.ttest_ind(means[3:], means[:3], equal_var=False).confidence_interval(0.95)
    assert contrast.delta("ttft_s.mean").interval == pytest.approx((expected.low, expected.high))


def test_a_seed_that_comes_again_starts_another_configuration(make_run):
    runs = [make_run(draws(seed), seed=seed) for seed in (0, 1)]
    again = [make_run(draws(seed) + 1, seed=seed) for seed in (0, 1)]
    found = configurations([*runs, *again], PLACES[:4])
    assert [each.seeds for each in found] == [(0, 1), (0, 1)]
    assert [each.label for each in found] == ["a, b", "c, d"]


def test_runs_of_one_scenario_under_different_seeds_stand_for_themselves(make_run):
    comparison = against(make_run(draws(0), seed=0), make_run(draws(1), seed=1))
    (contrast,) = comparison.contrasts
    assert contrast.pairing.kind == "requests"
    assert [change.path for change in contrast.changes] == ["seed"]


def test_few_requests_have_no_intervals_and_that_is_said(make_run):
    (contrast,) = against(make_run([1.0]), make_run([2.0])).contrasts
    delta = contrast.delta("ttft_s.p99")
    assert (delta.delta, delta.interval, delta.verdict) == (1.0, None, "untested")
    assert "too few" in delta.note
    (contrast,) = against(make_run(draws(1, 150)), make_run(draws(2, 150))).contrasts
    assert contrast.delta("ttft_s.mean").interval
    assert contrast.delta("ttft_s.p95").interval is None


def test_runs_without_requests_have_nothing_to_compare(make_run):
    runs = [make_run([1.0]), make_run([1.0])]
    for run in runs:
        run.requests = {name: column[:0] for name, column in run.requests.items()}
        run.summary |= {"makespan_s": 0.0, "ttft_s": None, "tpot_s": None, "e2e_s": None, "queue_s": None}
        del run.summary["slo"]
    (contrast,) = against(*runs).contrasts
    assert contrast.pairing.kind == "unpaired"
    assert contrast.delta("ttft_s.mean").verdict == "unknown"


def test_a_quantile_needs_an_observation_beyond_it_in_each_section():
    assert [needed(level) for level in (None, 0.5, 0.9, 0.95, 0.99)] == [10, 10, 10, 20, 100]


def test_requests_that_never_got_that_far_do_not_count(make_run):
    values = draws(1)
    values[::3] = np.nan
    (contrast,) = against(make_run(draws(1)), make_run(values)).contrasts
    assert contrast.latencies[0].pairs == np.isfinite(values).sum()
    assert contrast.delta("throughput.requests_per_s").verdict == "worse"


def test_the_parts_of_the_makespan_make_up_the_throughput(make_run):
    run = make_run(draws(3))
    found = Sectioned(run)
    for name, value in run.summary["throughput"].items():
        assert np.mean(found.values[f"throughput.{name}"]) == pytest.approx(value)
    assert all(len(values) == SECTIONS for values in found.values.values())
    assert not set(found.values) & set(found.missing)


def test_attainment_is_that_of_the_requests(make_run):
    first, second = make_run(draws(1), slo=1.0), make_run(draws(1), slo=2.0)
    (contrast,) = against(first, second).contrasts
    assert contrast.delta("slo.attainment").verdict == "better"
    assert [change.path for change in contrast.changes] == ["slo.ttft_s"]
    second.summary["slo"]["attainment"] = 0.1234
    (contrast,) = against(first, second).contrasts
    assert contrast.delta("slo.attainment").interval is None


def test_labels_tell_runs_apart(make_run):
    runs = [make_run(draws(i), limit=i) for i in range(3)]
    labels = [each.label for each in configurations(runs, ["x/run", "y/run", "y/run"])]
    assert labels == ["x/run", "y/run", "y/run (2)"]


def test_what_else_differs_is_noted(make_run):
    first, second = make_run(draws(1)), make_run(draws(1), content="other")
    comparison = against(first, second)
    assert [change.path for change in comparison.contrasts[0].changes] == ["traces[0].content_hash"]
    assert any("different traces" in note for note in comparison.notes)
    second.summary["cost"] = {"source": "roofline"}
    assert any("measured and roofline" in note for note in against(first, second).notes)
    second.manifest["interrupted"] = True
    assert any("interrupted" in note for note in against(first, second).notes)


def test_that_fewer_requests_finished_is_said(make_run):
    values = draws(1)
    assert not any("finished" in note for note in against(make_run(values), make_run(values + 1)).notes)
    after = np.where(values > 2, np.nan, values)
    (note,) = [each for each in against(make_run(values), make_run(after)).notes if "finished" in each]
    assert note.startswith("100 % of the requests finished in a, 8")
    assert "attainment and goodput count all" in note


def test_one_run_is_no_comparison(make_run):
    with pytest.raises(UsageError, match="at least two"):
        against(make_run(draws(1)))


def test_pooled_gaps_belong_to_no_request():
    assert OF_REQUESTS == ("ttft_s", "tpot_s", "e2e_s", "queue_s")


def test_no_interval_leaves_a_figure_below_zero():
    """A figure of 2 may fall to 0 and no further, whatever the t distribution says; what it may rise to stays."""
    fallen = Delta("ttft_s.mean", 2.0, 0.5, -1.5, (-4.0, 1.0))
    assert fallen.interval == (-2.0, 1.0)
    assert Delta("ttft_s.mean", 2.0, 0.5, -1.5, (-1.8, -1.2)).interval == (-1.8, -1.2)
    assert Delta("ttft_s.mean", 2.0, None, None, None).interval is None
