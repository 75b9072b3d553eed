"""TTFT is divided into queue, prefill and wait, exactly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simslm.report.latencies import distributions, first_tokens, prefill_s
from simslm.report.tables import RunTables, read_run


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> RunTables:
    """Prompts in several pieces, and a queue."""
    return read_run(make_run(name="pieces", rate_rps=60, max_num_batched_tokens=96, max_num_seqs=24))


def test_the_parts_of_ttft_add_up(run: RunTables):
    found = first_tokens(run)
    assert [each.name for each in found] == ["all", "fastest half", "50 to 90 %", "90 to 99 %", "slowest 1 %"]
    assert [each.requests for each in found] == [300, 150, 120, 27, 3]
    whole, *groups = found
    assert whole.queue_s + whole.prefill_s + whole.wait_s == pytest.approx(run.summary["ttft_s"]["mean"])
    for name in ("queue_s", "prefill_s", "wait_s"):
        together = sum(getattr(each, name) * each.requests for each in groups)
        assert together == pytest.approx(getattr(whole, name) * whole.requests)
    slowest = groups[-1]
    assert slowest.queue_s + slowest.prefill_s + slowest.wait_s == pytest.approx(
        np.sort(run.requests["ttft_s"])[-3:].mean()
    )


def test_prefill_is_the_time_of_the_iterations_with_its_prompt(run: RunTables):
    stages = run.stages
    assert stages is not None
    for request in (0, 17, 299):
        mine = (stages["request_id"] == request) & ~stages["decode"]
        assert prefill_s(run)[request] == pytest.approx(np.sum((stages["end_s"] - stages["start_s"])[mine]))


def test_a_prefill_after_the_first_token_is_not_part_of_ttft(run: RunTables):
    assert run.stages is not None
    again = {name: np.append(column, column[:1]) for name, column in run.stages.items()}
    again["start_s"][-1], again["end_s"][-1] = 1e3, 2e3
    assert np.array_equal(prefill_s(replace(run, stages=again)), prefill_s(run))


def test_rows_of_requests_may_be_in_any_order(run: RunTables):
    turned = {name: column[::-1] for name, column in run.requests.items()}
    assert np.array_equal(prefill_s(replace(run, requests=turned)), prefill_s(run)[::-1])


def test_a_run_without_these_files_has_fewer_figures(run: RunTables):
    bare = replace(run, stages=None, gaps=None)
    assert first_tokens(bare) == []
    names = [plot.id for plot in distributions(run, "run-1")]
    assert names == ["run-1-ttft_s", "run-1-tpot_s", "run-1-itl_s", "run-1-e2e_s"]
    assert [plot.id for plot in distributions(bare, "run-1")] == [names[0], names[1], names[3]]
