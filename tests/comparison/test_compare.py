"""Runs are paired where they can be, intervals hold what they say, and the rest is said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simslm.comparison import compare
from simslm.comparison.compare import configurations
from simslm.comparison.delta import Delta
from simslm.comparison.sampled import OF_REQUESTS
from simslm.comparison.wording import TOO_WIDE, change, interval, sentences
from simslm.errors import UsageError
from simslm.metrics.figure_paths import FIGURES

PLACES = [f"runs/{letter}" for letter in "abcdefgh"]


def against(*runs):
    return compare(runs, PLACES[: len(runs)])


def draws(seed: int, count: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1.0, count)


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
    (contrast,) = against(make_run(draws(1, 10_000)), make_run(draws(1, 10_000) + 0.25)).contrasts
    for name in ("mean", "p50", "p90", "p95", "p99"):
        delta = contrast.delta(f"ttft_s.{name}")
        assert delta.delta == pytest.approx(0.25)
        assert delta.interval == pytest.approx((0.25, 0.25))
        assert delta.verdict == "worse"
    ttft = contrast.latencies[0]
    assert (ttft.metric, ttft.pairs, ttft.faster, ttft.slower) == ("ttft_s", 10_000, 0, 1)
    assert ttft.differences_s == pytest.approx(np.full(101, 0.25))


def test_pairing_narrows_what_other_requests_would_leave_open(make_run):
    first, second = make_run(draws(1)), make_run(draws(1) + 0.02)
    other = make_run(draws(1) + 0.02, lengths=np.arange(1000) % 7 + 2)
    (paired,), (unpaired,) = against(first, second).contrasts, against(first, other).contrasts
    assert unpaired.pairing.kind == "unpaired"
    assert "differ in length" in unpaired.pairing.why
    assert unpaired.latencies == ()
    assert paired.delta("ttft_s.mean").verdict == "worse"
    assert unpaired.delta("ttft_s.mean").verdict == "unclear"


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
    assert "1 run under seeds that one of them lacks left out" in contrast.pairing.why


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
    assert "run more requests or several seeds" in delta.note
    (contrast,) = against(make_run(draws(1, 400)), make_run(draws(2, 400))).contrasts
    assert contrast.delta("ttft_s.mean").interval
    assert contrast.delta("ttft_s.p50").interval
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


def test_requests_that_never_got_that_far_do_not_count(make_run):
    values = draws(1)
    values[::3] = np.nan
    (contrast,) = against(make_run(draws(1)), make_run(values)).contrasts
    assert contrast.latencies[0].pairs == np.isfinite(values).sum()
    assert contrast.delta("throughput.requests_per_s").verdict == "worse"


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


def lost(seed: int, share: float, count: int = 4000) -> np.ndarray:
    """TTFTs of which a share, spread over the run, has none."""
    values = draws(seed, count)
    values[np.random.default_rng(seed + 1).random(count) < share] = np.nan
    return values


def test_a_missed_request_waits_forever(make_run):
    comparison = against(make_run(draws(1, 4000)), make_run(lost(1, 0.36)))
    (contrast,) = comparison.contrasts
    p90, p50, mean = (contrast.delta(f"ttft_s.{name}") for name in ("p90", "p50", "mean"))
    assert (p90.value, p90.delta, p90.relative) == (np.inf, np.inf, np.inf)
    assert p90.verdict == p50.verdict == "worse"
    assert p50.value == pytest.approx(np.quantile(np.nan_to_num(lost(1, 0.36), nan=1e9), 0.5))
    assert mean.verdict == "untested"
    assert "not comparable" in mean.note
    assert contrast.delta("requests.rejected").verdict == "worse"
    assert any("counts as a miss" in note for note in comparison.notes)


def test_requests_that_both_miss_leave_a_mean_comparable(make_run):
    before, after = lost(1, 0.01), lost(1, 0.01) + 0.1
    (contrast,) = against(make_run(before), make_run(after)).contrasts
    assert contrast.delta("ttft_s.mean").delta == pytest.approx(0.1)
    assert contrast.delta("ttft_s.mean").verdict == "worse"
    assert contrast.delta("ttft_s.max").verdict == "same"


def test_the_sentence_says_how_many_each_served(make_run):
    faster = np.where(np.isnan(lost(1, 0.2)), np.nan, draws(1, 4000) / 2)
    (contrast,) = against(make_run(draws(1, 4000)), make_run(faster)).contrasts
    said = [words for _, words in sentences(contrast, FIGURES)]
    gone = int(np.isnan(faster).sum())
    assert said[0].startswith(f"b served {4000 - gone:,} of 4,000 requests: {gone:,} (")
    assert said[0].endswith("a served all 4,000.")
    (better,) = [words for words in said if words.startswith("Better")]
    assert "though" in better
    assert "of its requests were not served (none before): " in better
    assert "TTFT mean" not in "".join(said)


def test_a_rejected_and_a_failed_request_are_alike(make_run):
    values = lost(3, 0.1)
    for status in ("rejected", "failed"):
        (contrast,) = against(make_run(draws(3, 4000)), make_run(values, lost=status)).contrasts
        assert contrast.delta("ttft_s.p95").value == np.inf
        assert contrast.delta(f"requests.{status}").verdict == "worse"


def test_nothing_that_was_tested_is_not_called_no_difference(make_run):
    (contrast,) = against(make_run(draws(1, 40)), make_run(draws(2, 40))).contrasts
    ((mark, words),) = sentences(contrast, ("ttft_s.mean",))
    assert (mark, words.partition(" TTFT")[0]) == ("", "Cannot tell of")
    assert "run more requests or several seeds" in words


def test_seeds_are_no_repetitions_of_a_replay(make_run):
    """The same requests at the same times under every seed: one run of each is compared, and that is said."""
    runs = [make_run(draws(1), seed=seed, replay={"path": "x"}, limit=1) for seed in range(3)]
    runs += [make_run(draws(1) + 0.25, seed=seed, replay={"path": "x"}, limit=2) for seed in range(3)]
    comparison = compare(runs, PLACES[:6])
    (contrast,) = comparison.contrasts
    assert contrast.pairing.kind == "requests"
    assert comparison.notes[0].startswith("seeds do not change a replay: ")
    assert contrast.delta("ttft_s.p50").interval == pytest.approx((0.25, 0.25))
    alone = against(*(make_run(draws(1), seed=seed, replay={"path": "x"}) for seed in (0, 1)))
    assert alone.notes[0].startswith("seeds do not change a replay: ")
    assert {delta.verdict for delta in alone.contrasts[0].deltas} == {"same", "unknown"}


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


def test_an_interval_that_leaves_nearly_everything_open_is_said_in_words():
    """From 2 to between 0 and 9 is no figure to read; a difference that is sure is one, however wide."""
    assert interval(Delta("ttft_s.mean", 2.0, 3.0, 1.0, (-4.0, 7.0))) == TOO_WIDE
    assert interval(Delta("ttft_s.mean", 2.0, 2.1, 0.1, (-0.5, 0.7))) == "-25 to +35 %"
    assert interval(Delta("ttft_s.mean", 2.0, 30.0, 28.0, (1.0, 60.0))) == "+50 to +3,000 %"


def test_shares_differ_by_points_and_figures_by_per_cent(make_run):
    (contrast,) = against(make_run(draws(1), slo=1.0), make_run(draws(1), slo=2.0)).contrasts
    attainment = contrast.delta("slo.attainment")
    assert attainment.delta is not None
    assert change(attainment) == f"{100 * attainment.delta:+.3g} points"
    assert interval(attainment).endswith(" points")
    (contrast,) = against(make_run(draws(1)), make_run(2 * draws(1))).contrasts
    assert change(contrast.delta("ttft_s.mean")) == "+100 %"


def test_equal_runs_are_said_to_be_the_same(make_run):
    (contrast,) = against(make_run(draws(1)), make_run(draws(1))).contrasts
    assert [words for _, words in sentences(contrast, FIGURES)] == ["Every figure is the same in both."]
