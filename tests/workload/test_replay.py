"""Replays: windows, thinning, scaling, copies, repeats; and what each keeps of the burstiness."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from simslm.errors import ScenarioError
from simslm.scenario.workload import Workload
from simslm.workload import generate
from simslm.workload.fitted import distance
from simslm.workload.traffic import generated_traffic


def replayed(path, seed=0, arrivals=None, **options):
    given = {"replay": {"path": path.name} | options}
    if arrivals is not None:
        given["arrivals"] = arrivals
    return generate(Workload.model_validate(given), seed, 1 << 40, path.parent)


def traffic(path, **options):
    return generated_traffic([replayed(path, **options)])


@pytest.fixture
def trace(tmp_path):
    """Requests at 0, 1, 2, ..., 9 s; the tokens of each are its number and 1 more; two sessions and none."""
    rows = [f"{100 + i},{i + 1},{i + 1},{['a', 'b', ''][i % 3]}" for i in range(10)]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,session_id", *rows]))
    return path


def clustered(path, starts):
    """Sessions of forty requests each, close together, from given starts on."""
    rng = np.random.default_rng(3)
    rows = [
        (start + gap, int(rng.integers(1, 500)), int(rng.integers(1, 200)), session)
        for session, start in enumerate(starts)
        for gap in np.cumsum(rng.exponential(0.4, 40))
    ]
    lines = [f"{at:.6f},{prompt},{output},s{session}" for at, prompt, output, session in rows]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,session_id", *lines]))
    return path


@pytest.fixture
def bursty(tmp_path):
    """Twenty minutes of clusters at a rate that swings."""
    starts = np.sort(np.random.default_rng(2).beta(2, 4, 100)) * 1200
    return clustered(tmp_path / "bursty.csv", starts)


@pytest.fixture
def steady(tmp_path):
    """Four hours of clusters at a steady rate."""
    return clustered(tmp_path / "steady.csv", np.sort(np.random.default_rng(2).uniform(0, 14_400, 800)))


def gaps_apart(scaled, whole, factor):
    """How far apart the gaps are, by Kolmogorov and Smirnov, were they as long in the mean."""
    return distance(scaled.gaps_s * factor, whole.gaps_s)


def test_a_window_begins_at_0_and_leaves_its_end_out(trace):
    found = replayed(trace, from_s=3, to_s=6)
    assert found.prompt_tokens.tolist() == [4, 5, 6]
    assert found.arrival_s.tolist() == [0, 1, 2]
    assert found.session_id.tolist() == [0, 1, -1]


def test_what_is_asked_for_is_done_in_order(trace):
    found = replayed(trace, from_s=2, to_s=6, copies=2, time_scale=0.5, repeat=2, limit=10)
    assert found.arrival_s.tolist() == pytest.approx([0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5, 12 / 7, 12 / 7])
    assert found.prompt_tokens.tolist() == [3, 5, 4, 6, 5, 3, 6, 4, 3, 5]


def test_copies_and_repeats_are_of_others(trace):
    found = replayed(trace, repeat=3)
    assert len(found) == 30
    assert np.diff(found.arrival_s).tolist() == [1.0] * 29
    sessions = found.session_id.reshape(3, 10)
    for one, other in pairwise(sessions):
        assert not set(one[one >= 0]) & set(other[other >= 0])


def test_prefixes_of_copies_share_nothing(workloads):
    path = workloads / "mooncake_arxiv_toollike.jsonl"
    once, twice = replayed(path), replayed(path, repeat=2)
    count = len(once)
    assert twice.units[:count] == once.units
    mine, others = (
        {unit for chain in part for unit in chain} for part in (twice.units[:count], twice.units[count:])
    )
    assert not mine & others
    assert [len(chain) for chain in twice.units[count:]] == [len(chain) for chain in once.units]


def test_thinning_keeps_the_share_and_sessions_whole(bursty):
    whole = replayed(bursty)
    kept = replayed(bursty, thin={"share": 0.3, "by": "session"})
    sizes = np.bincount(kept.session_id)
    assert set(sizes) == {40}
    assert len(sizes) == pytest.approx(30, abs=15)
    some = replayed(bursty, thin={"share": 0.3})
    assert len(some) == pytest.approx(0.3 * len(whole), rel=0.1)
    assert len(replayed(bursty, thin={"share": 1.0})) == len(whole)
    assert not np.array_equal(
        some.arrival_s, replayed(bursty, seed=1, thin={"share": 0.3}).arrival_s[: len(some)]
    )


def test_time_scale_keeps_the_spread_of_the_gaps(bursty):
    whole, quick = traffic(bursty), traffic(bursty, time_scale=0.25)
    assert quick.gap_cv == pytest.approx(whole.gap_cv, rel=1e-9)
    assert quick.rate_rps == pytest.approx(4 * whole.rate_rps)


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0, 3.5])
def test_rate_scale_keeps_the_curve_and_the_gaps_within_windows(bursty, factor):
    whole, scaled = traffic(bursty), traffic(bursty, rate_scale={"factor": factor})
    assert scaled.rate_rps == pytest.approx(factor * whole.rate_rps, rel=0.12)
    assert gaps_apart(scaled, whole, factor) < 0.03
    windows = min(len(whole.counts(60)), len(scaled.counts(60)))
    one, other = whole.counts(60)[:windows], scaled.counts(60)[:windows]
    assert np.corrcoef(one, other)[0, 1] > 0.9


def test_a_whole_factor_plays_every_request_of_a_window_as_often(bursty):
    scaled = replayed(bursty, rate_scale={"factor": 3.0})
    assert len(scaled) == 3 * len(replayed(bursty))
    assert sum(scaled.prompt_tokens) == 3 * sum(replayed(bursty).prompt_tokens)


def test_rate_scale_keeps_the_gaps_of_a_real_trace_where_random_thinning_does_not(workloads):
    path = workloads / "azure2023_code.csv"
    whole = traffic(path)
    scaled, thinned = traffic(path, rate_scale={"factor": 0.5}), traffic(path, thin={"share": 0.5})
    assert gaps_apart(scaled, whole, 0.5) < 0.06
    assert gaps_apart(thinned, whole, 0.5) > 0.12


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_random_thinning_keeps_the_curve_and_loses_the_excess_in_proportion(bursty, share):
    whole, kept = traffic(bursty), traffic(bursty, thin={"share": share})
    assert kept.dispersion(60) == pytest.approx(1 + share * (whole.dispersion(60) - 1), rel=0.2)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_keep_the_index_of_dispersion(steady, copies):
    """Variances of independent counts add, and so do means."""
    whole, several = traffic(steady), traffic(steady, copies=copies)
    assert len(several) == copies * len(whole)
    assert several.rate_rps == pytest.approx(copies * whole.rate_rps, rel=0.02)
    for window_s in (1, 10):
        assert several.dispersion(window_s) == pytest.approx(whole.dispersion(window_s), rel=0.15)
    assert several.gap_cv < whole.gap_cv


def test_a_scale_of_1_and_one_copy_change_nothing(bursty):
    plain, same = replayed(bursty), replayed(bursty, rate_scale={"factor": 1.0}, copies=1, repeat=1)
    assert same.arrival_s == pytest.approx(plain.arrival_s, abs=1e-9)
    assert np.array_equal(same.prompt_tokens, plain.prompt_tokens)


def test_one_request_can_be_scaled_and_copied(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n5,7,9\n")
    found = replayed(path, rate_scale={"factor": 3.0}, copies=2, repeat=2, time_scale=2.0)
    assert len(found) == 12
    assert set(found.prompt_tokens) == {7}
    assert found.arrival_s[0] == 0


def test_other_arrivals_take_the_place_of_the_trace_s(workloads):
    path = workloads / "vidur_arxiv_summarization.csv"
    found = replayed(path, arrivals={"process": "poisson", "rate_rps": 4}, limit=500)
    assert found.prompt_tokens[:2].tolist() == [3772, 2015]
    assert found.arrival_rate_rps == pytest.approx(4, rel=0.2)
    assert found.source.endswith("with poisson arrivals")
    loop = replayed(path, arrivals={"process": "closed-loop", "concurrency": 3})
    assert (loop.closed_loop.concurrency, len(loop)) == (3, 10_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "says nothing of when requests arrive; give arrivals"),
        ({"arrivals": {"process": "all-at-once"}, "time_scale": 2.0}, "remove time_scale"),
        ({"arrivals": {"process": "all-at-once"}, "from_s": 2.0, "copies": 3}, "remove from_s, copies"),
    ],
)
def test_lengths_alone_need_arrivals_and_take_no_scale_of_time(options, message, workloads):
    with pytest.raises(ScenarioError, match=message):
        replayed(workloads / "vidur_arxiv_summarization.csv", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from_s": 50.0}, "no request that is asked for; move from_s"),
        ({"thin": {"share": 1e-9}}, "thin it less"),
        ({"repeat": 1_000_000, "copies": 10_000}, "about 1e\\+11 requests"),
        ({"thin": {"share": 0.5, "by": "session"}, "format": "vidur"}, "the header has no column"),
    ],
)
def test_replays_of_nothing_or_too_much_are_refused(options, message, trace):
    with pytest.raises(ScenarioError, match=message):
        replayed(trace, **options)


def test_a_trace_without_sessions_cannot_be_thinned_by_them(workloads):
    with pytest.raises(ScenarioError, match="has no sessions to thin it by"):
        replayed(workloads / "azure2023_code.csv", thin={"share": 0.5, "by": "session"})


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        ({"from_s": 5.0, "to_s": 5.0}, "is not before to_s"),
        ({"format": "azure"}, "Input should be 'auto'"),
        ({"rate_scale": {"factor": 0}}, "greater than or equal to 0.001"),
    ],
)
def test_replays_that_make_no_sense_are_refused(replay, message):
    with pytest.raises(ValidationError, match=message):
        Workload.model_validate({"replay": {"path": "x"} | replay})


def test_images_are_noted(workloads):
    found = replayed(workloads / "azure2025_multimodal_rows5.csv")
    assert any("images come with the prompts" in note for note in found.notes)


def test_a_far_scaled_trace_is_refused(trace):
    with pytest.raises(ScenarioError, match="its last request arrives after"):
        generate(
            Workload.model_validate({"replay": {"path": str(trace), "time_scale": 1e300}}), 0, 10, Path()
        )
