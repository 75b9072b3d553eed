"""Time averages are exact integrals and peaks exact maxima of the step functions they stand for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.report.tables import read_run
from simslm.report.timeline import (
    MAX_INTERVALS,
    MAX_REPLICAS,
    MIN_INTERVALS,
    Spans,
    Timeline,
    bands,
    replica_count,
    timelines,
)

spans_and_values = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(0, 9)), min_size=1, max_size=15
)


@given(spans_and_values, st.integers(1, 12))
def test_bands_agree_with_counting_instant_by_instant(rows: list[tuple[int, int, int]], intervals: int):
    """Spans with whole-number ends, compared with a sum over unit cells."""
    start = np.array([float(row[0]) for row in rows])
    end = start + [row[1] for row in rows]
    value = np.array([float(row[2]) for row in rows])
    cells = np.arange(intervals * 7)
    level = np.array([value[(start <= cell) & (cell < end)].sum() for cell in cells])
    found = bands(Spans.between(start, end).total(value), np.arange(intervals + 1) * 7.0)
    assert np.allclose(found.mean, level.reshape(intervals, 7).mean(axis=1))
    assert np.allclose(found.peak, level.reshape(intervals, 7).max(axis=1))


def test_a_rounding_overlap_of_one_replica_is_not_a_peak():
    start = np.array([0.0, 0.3])
    iterations = {"start_s": start, "duration_s": np.array([0.1 + 0.2, 0.3]), "replica": np.zeros(2)}
    found = bands(Spans.of(iterations).total(np.array([5.0, 5.0])), np.array([0.0, 0.6]))
    assert found.peak.tolist() == [5.0]


def test_replicas_add_up():
    iterations = {"start_s": np.zeros(2), "duration_s": np.ones(2), "replica": np.array([0.0, 1.0])}
    found = bands(Spans.of(iterations).total(np.array([5.0, 2.0])), np.array([0.0, 1.0]))
    assert found.peak.tolist() == [7.0]
    assert found.mean.tolist() == [7.0]


@pytest.fixture(scope="module")
def drawn(make_run: Callable[..., Path]) -> tuple[Timeline, dict]:
    run = read_run(make_run(name="two", replicas=2, rate_rps=30))
    found = timelines(run)
    assert found is not None
    return found[0], {"run": run, "each": found[1]}


def test_the_area_under_the_power_is_the_energy_of_the_run(drawn: tuple[Timeline, dict]):
    found, context = drawn
    assert found.power_w is not None
    area = float(np.sum(found.power_w.mean * np.diff(found.edges_s)))
    assert area == pytest.approx(context["run"].summary["energy"]["total_j"], rel=1e-9)


def test_the_area_under_the_output_rate_is_every_output_token(drawn: tuple[Timeline, dict]):
    found, context = drawn
    tokens = context["run"].requests["output_tokens"].sum()
    assert float(np.sum(found.output_rate * np.diff(found.rate_edges_s))) == pytest.approx(tokens, rel=1e-9)
    assert found.offered_rate is not None
    assert float(np.sum(found.offered_rate * np.diff(found.rate_edges_s))) == pytest.approx(tokens, rel=1e-9)


def test_the_timeline_is_thinned_and_keeps_the_peaks(drawn: tuple[Timeline, dict]):
    found, context = drawn
    run = context["run"]
    assert len(found.edges_s) == MAX_INTERVALS + 1
    assert found.edges_s[0] == run.requests["arrival_s"].min()
    per_replica = [
        run.iterations["decode_seqs"][run.iterations["replica"] == replica].max() for replica in (0, 1)
    ]
    assert max(per_replica) <= found.decode_seqs.peak.max() <= sum(per_replica)
    assert found.kv_share is not None
    assert 0 < found.kv_share.peak.max() < 1
    assert np.all(found.running.mean <= found.running.peak + 1e-9)


def test_replicas_add_up_to_the_run(drawn: tuple[Timeline, dict]):
    whole, context = drawn
    each = list(context["each"].values())
    assert len(each) == 2
    for name in ("running", "waiting", "decode_seqs", "power_w"):
        together = sum(getattr(one, name).mean for one in each)
        assert np.allclose(together, getattr(whole, name).mean)
    for name in ("output_rate", "offered_rate", "finished_rate", "good_rate"):
        assert np.allclose(sum(getattr(one, name) for one in each), getattr(whole, name))
    kv = [one.kv_share.mean for one in each]
    assert np.allclose(np.mean(kv, axis=0), whole.kv_share.mean)
    assert [one.max_num_seqs for one in each] == [64, 64]
    assert whole.max_num_seqs == 128


def test_the_rates_count_every_request_once(drawn: tuple[Timeline, dict]):
    whole, context = drawn
    summary = context["run"].summary
    width = np.diff(whole.rate_edges_s)
    assert whole.good_rate is not None
    assert np.sum(whole.finished_rate * width) == pytest.approx(summary["requests"]["finished"])
    good = summary["slo"]["attainment"] * summary["requests"]["arrived"]
    assert np.sum(whole.good_rate * width) == pytest.approx(good)


@pytest.mark.slow
def test_many_replicas_have_coarser_timelines_and_the_idlest_have_none(make_run: Callable[..., Path]):
    run = read_run(make_run(name="many", replicas=MAX_REPLICAS + 3, num_requests=800, rate_rps=300))
    busiest = np.bincount(run.iterations["replica"].astype(int)).argmax()
    found = timelines(run)
    assert found is not None
    whole, each = found
    assert len(each) == MAX_REPLICAS
    assert busiest in each
    assert MIN_INTERVALS <= len(whole.edges_s) - 1 < MAX_INTERVALS


def test_arrivals_at_once_offer_no_rate(make_run: Callable[..., Path]):
    found = timelines(read_run(make_run(name="burst", rate_rps=0, num_requests=40)))
    assert found is not None
    assert found[0].offered_rate is None


def test_unknown_power_and_blocks_are_none(make_run: Callable[..., Path]):
    run = read_run(make_run(name="dark", power_note="no meter", num_requests=20))
    run.summary["kv"]["num_gpu_blocks"] = None  # type: ignore[index]
    found = timelines(run)
    assert found is not None
    assert found[0].power_w is None
    assert found[0].kv_share is None


def test_the_replicas_are_those_deployed_or_seen(make_run: Callable[..., Path]):
    run = read_run(make_run(name="pair", replicas=2, num_requests=20))
    assert replica_count(run) == 2
    run.scenario["deployment"]["replicas_per_device"] = 4
    assert replica_count(run) == 8
    run.scenario["deployment"]["tensor_parallel_size"] = 2
    assert replica_count(run) == 4
    run.scenario["deployment"]["groups"] = [{}]
    assert replica_count(run) == 2
