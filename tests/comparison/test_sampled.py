"""Intervals of a run and of a difference hold the truth of a queue whose truth is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simslm.comparison.intervals import difference, interval, sampling_of
from simslm.comparison.sampled import Sampled
from simslm.metrics.quantiles import spread

RUNS = 60
COUNT = 20_000
SLO_S = 2.0


def queue(seed: int, load: float, count: int = COUNT, speed: float = 1.0) -> Sampled:
    """A single server (M/M/1) by Lindley's recursion: service a second on average, TTFT the wait."""
    draw = np.random.default_rng(seed)
    gaps, service = draw.exponential(1 / load, count), draw.exponential(1.0, count) / speed
    steps = np.concatenate([[0.0], service[:-1] - gaps[1:]])
    walk = np.cumsum(steps)
    wait = walk - np.minimum.accumulate(np.minimum(walk, 0.0))
    return sampled(np.cumsum(gaps), wait, wait + service)


def sampled(arrival: np.ndarray, ttft: np.ndarray, e2e: np.ndarray, **more: Any) -> Sampled:
    count = len(arrival)
    columns = {
        "arrival_s": arrival,
        "ttft_s": ttft,
        "e2e_s": e2e,
        "queue_s": ttft,
        "tpot_s": np.full(count, np.nan),
        "prompt_tokens": np.full(count, 10.0),
        "output_tokens": np.full(count, 1.0),
        "finished": np.isfinite(e2e),
        **more,
    }
    makespan = float(np.nanmax(arrival + e2e) - arrival[0])
    good = columns["finished"] & ~(ttft > SLO_S)
    done = int(columns["finished"].sum())
    summary = {
        "requests": {
            "arrived": count,
            "finished": done,
            "rejected": int(more.get("rejected", np.zeros(1)).sum()),
        },
        "throughput": {"requests_per_s": done / makespan, "output_tokens_per_s": done / makespan},
        "slo": {"attainment": float(good.mean()), "goodput_rps": good.sum() / makespan},
        **{key: spread(columns[key][np.isfinite(columns[key])]) for key in ("ttft_s", "e2e_s", "queue_s")},
    }
    return Sampled(columns, summary, {"ttft_s": SLO_S})


def wait_quantile(load: float, level: float, speed: float = 1.0) -> float:
    """P(wait > t) = ρ e^(−(μ − λ) t) (Gross and Harris 1998, section 2.2)."""
    return max(np.log(load / speed / (1 - level)) / (speed - load), 0.0)


def wait_mean(load: float, speed: float = 1.0) -> float:
    return load / speed / (speed - load)


def at_least(held: int, given: int, share: float = 0.95) -> bool:
    """Not fewer than stated, with z = 3."""
    return bool(stats.binomtest(held, given, share, alternative="less").pvalue > stats.norm.sf(3))


@pytest.fixture(scope="module")
def queues() -> list[Sampled]:
    return [queue(seed, 0.6) for seed in range(RUNS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "truth"),
    [
        ("ttft_s.mean", wait_mean(0.6)),
        ("ttft_s.p50", wait_quantile(0.6, 0.5)),
        ("ttft_s.p90", wait_quantile(0.6, 0.9)),
        ("ttft_s.p99", wait_quantile(0.6, 0.99)),
        ("slo.attainment", 1 - 0.6 * np.exp(-0.4 * SLO_S)),
        ("throughput.requests_per_s", 0.6),
        ("slo.goodput_rps", 0.6 * (1 - 0.6 * np.exp(-0.4 * SLO_S))),
    ],
)
def test_an_interval_holds_the_long_run_figure(queues, path, truth):
    given = [found for run in queues if (found := interval(run, path).interval) is not None]
    assert len(given) > 0.7 * RUNS
    assert at_least(sum(low <= truth <= high for low, high in given), len(given))


@pytest.fixture(scope="module")
def faster() -> list[Sampled]:
    """The same requests, served a tenth faster."""
    return [queue(seed, 0.6, speed=1.1) for seed in range(RUNS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["ttft_s.mean", "ttft_s.p90", "ttft_s.p99", "e2e_s.mean", "throughput.requests_per_s"]
)
def test_equal_queues_are_told_apart_no_more_often_than_stated(queues, path):
    found = [difference(first, second, path, paired=False).interval for first, second in pairwise(queues)]
    given = [each for each in found if each is not None]
    assert len(given) > 0.5 * len(found)
    assert at_least(sum(low <= 0 <= high for low, high in given), len(given))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "truth"),
    [
        ("ttft_s.mean", wait_mean(0.6, 1.1) - wait_mean(0.6)),
        ("ttft_s.p90", wait_quantile(0.6, 0.9, 1.1) - wait_quantile(0.6, 0.9)),
        ("ttft_s.p99", wait_quantile(0.6, 0.99, 1.1) - wait_quantile(0.6, 0.99)),
        ("throughput.requests_per_s", 0.0),
    ],
)
def test_a_paired_difference_holds_the_truth_and_is_narrow(queues, faster, path, truth):
    found = []
    for before, after in zip(queues, faster, strict=True):
        paired, alone = (difference(before, after, path, each).interval for each in (True, False))
        if paired is not None:
            found.append((*paired, alone))
    assert len(found) > 0.8 * RUNS
    assert at_least(sum(low <= truth <= high for low, high, _ in found), len(found))
    if path.startswith("ttft_s"):
        assert sum(high < 0 for _, high, _ in found) > 0.9 * len(found)
        both = [(high - low, alone[1] - alone[0]) for low, high, alone in found if alone]
        assert np.median([paired / alone for paired, alone in both]) < 0.6


def test_an_overloaded_queue_has_no_interval_of_its_latency():
    run = queue(1, 1.3)
    assert interval(run, "ttft_s.mean").interval is None
    assert "too short" in interval(run, "ttft_s.mean").note
    low, high = interval(run, "throughput.requests_per_s").interval
    assert low < 1.0 < high < 1.1


def test_an_overloaded_queue_is_told_from_one_that_keeps_up():
    """Its latency grows without end: how much longer is open, that it is longer is sure; not of other requests."""
    for seed in range(10):
        before, after = queue(seed, 0.9, 2000, speed=0.7), queue(seed, 0.9, 2000, speed=1.5)
        for path in ("ttft_s.mean", "ttft_s.p50", "ttft_s.p90", "slo.attainment"):
            found = difference(before, after, path, paired=True)
            assert found.interval is None
            assert found.direction == (1 if path == "slo.attainment" else -1)
        assert difference(before, after, "ttft_s.mean", paired=False).direction == 0
        assert difference(before, before, "ttft_s.mean", paired=True).direction == 0


@pytest.mark.slow
def test_the_same_queue_has_no_direction_over_other_requests():
    """Taken as pairs, long excursions of equal queues hardly ever point one way in every tenth: within 5 %, z = 3."""
    runs = [queue(seed, 0.9, 2000) for seed in range(201)]
    told = sum(difference(a, b, "ttft_s.mean", paired=True).direction != 0 for a, b in pairwise(runs))
    assert stats.binomtest(told, 200, 0.05, alternative="greater").pvalue > stats.norm.sf(3)


def test_quantiles_need_ten_requests_beyond_them_in_each_of_ten_sections():
    assert interval(queue(1, 0.1, 9_900), "ttft_s.p99").interval is None
    assert "fewer than 100 requests beyond" in interval(queue(1, 0.1, 9_900), "ttft_s.p99").note
    assert interval(queue(1, 0.1, 10_100), "ttft_s.p99").interval is not None
    assert interval(queue(1, 0.1, 150), "ttft_s.p50").interval is None


def test_intervals_are_around_the_figures_of_the_summary(queues):
    found = sampling_of(queues[0])[0]
    assert {"ttft_s.mean", "ttft_s.p99", "slo.attainment", "throughput.requests_per_s"} <= set(found)
    assert "itl_s.mean" not in found
    for path, (low, high) in found.items():
        section, name = path.split(".")
        assert 0 <= low <= queues[0].summary[section][name] <= high
    assert found["slo.attainment"][1] <= 1


def test_the_order_of_rows_does_not_matter(queues):
    run = queues[0]
    other = np.random.default_rng(1).permutation(run.count)
    names = (
        "arrival_s",
        "ttft_s",
        "e2e_s",
        "queue_s",
        "tpot_s",
        "prompt_tokens",
        "output_tokens",
        "finished",
    )
    mixed = Sampled({name: run.column(name)[other] for name in names}, run.summary, {"ttft_s": SLO_S})
    assert sampling_of(mixed) == sampling_of(run)


def test_independent_runs_that_never_meet_in_attainment_are_told_apart(queues):
    quick, slow = queue(1, 0.1, 300), queue(2, 3.0, 200)
    assert quick.good is not None
    assert slow.good is not None
    all_good, none_good = (with_good(run, good) for run, good in ((quick, True), (slow, False)))
    found = difference(all_good, none_good, "slo.attainment", paired=False)
    assert (found.interval, found.direction) == (None, -1)
    assert "requests differ" not in found.note, "they are others"
    assert difference(none_good, all_good, "slo.attainment", paired=False).direction == 1
    assert not any(
        difference(first, second, "slo.attainment", paired=False).direction
        for first, second in pairwise(queues)
    )


def with_good(run: Sampled, good: bool) -> Sampled:
    run.good = np.full(run.count, good)
    return run


@pytest.mark.parametrize("load", [0.05, 5.0])
def test_an_interval_of_a_positive_figure_does_not_reach_0(load):
    paths = ("throughput.requests_per_s", "ttft_s.mean")
    found = [interval(queue(seed, load, 100), path) for seed in range(20) for path in paths]
    given = [sure.interval for sure in found if sure.interval is not None]
    assert given
    assert all(low > 0 for low, _ in given)
    assert any("larger than the figure itself" in sure.note for sure in found)
