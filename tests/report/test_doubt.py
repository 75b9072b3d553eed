"""A verdict that the costs cannot carry is none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from simslm.report.doubt import doubted
from simslm.report.provenance import provenance
from simslm.report.tables import RunTables, read_run
from simslm.report.verdict import verdict


@pytest.fixture
def run(make_run: Callable[..., Path]) -> RunTables:
    return read_run(make_run(name="answer"))


def told(run: RunTables, interval: list[float] | None) -> str:
    figures = {} if interval is None else {"slo.attainment": interval}
    run.summary["intervals"] = {"level": 0.95, "figures": figures, "note": ""}
    return doubted(run, verdict(run)).word


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "word"),
    [
        (None, "SLO met"),
        ([0.95, 1.0], "SLO met"),
        ([0.9, 1.0], "SLO met"),
        ([0.7, 1.0], "Cannot tell"),
        ([0.89, 0.9], "Cannot tell"),
    ],
)
def test_an_interval_across_the_share_asked_decides_nothing(run: RunTables, interval, word):
    """90 % are asked, and all requests of the run kept the bounds."""
    assert told(run, interval) == word
    if word == "Cannot tell":
        answer = doubted(run, verdict(run))
        assert answer.state == "unclear"
        assert "holds the 90 % asked" in answer.sentence
        assert verdict(run).sentence in answer.sentence


def test_costs_that_were_forced_decide_nothing(run: RunTables):
    run.summary["cost"] = {"flags": ["the calibration misses its own runs"], "forced": True}
    answer = doubted(run, verdict(run))
    assert answer.word == "Cannot tell"
    assert "The costs miss the runs they were calibrated on." in answer.sentence
    assert "The calibration misses its own runs." in provenance(run).warnings


def test_other_flags_leave_the_verdict(run: RunTables):
    run.summary["cost"] = {"flags": ["TTFT is missed"], "forced": False}
    assert doubted(run, verdict(run)).word == "SLO met"
    assert "TTFT is missed." in provenance(run).warnings


def test_without_an_slo_there_is_nothing_to_doubt(make_run: Callable[..., Path]):
    run = read_run(make_run(name="free", slo=None, num_requests=30))
    run.summary["cost"] = {"flags": ["x"], "forced": True}
    assert doubted(run, verdict(run)) == verdict(run)
