"""Conditions on changes mean what they say, and what is none is refused with the nearest name."""

from __future__ import annotations

import numpy as np
import pytest

from simslm.comparison import compare
from simslm.comparison.gate import Gate, failures
from simslm.errors import UsageError


@pytest.fixture
def contrasts(make_run):
    """TTFT 1 s becomes 1.1 s."""
    return compare([make_run(np.full(200, 1.0)), make_run(np.full(200, 1.1))], ["a", "b"]).contrasts


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("ttft_s.p99 > +5%", True),
        ("ttft_s.p99 > +15%", False),
        ("ttft_s.p99>+5%", True),
        ("ttft_s.p99 > + 5 %", True),
        ("ttft_s.p99 < -5%", False),
        ("ttft_s.p99 > -5%", True),
        ("ttft_s.p99 > +0.05", True),
        ("ttft_s.p99 > +0.2", False),
        ("ttft_s.p99 > 1.05", True),
        ("ttft_s.p99 > 1.2", False),
        ("ttft_s.p99 > +1e-3", True),
        ("ttft_s.p99 > +5% and ttft_s.mean > +15%", False),
        ("ttft_s.p99 > +15% or ttft_s.mean > +5%", True),
        ("not ttft_s.p99 > +15%", True),
        ("throughput.requests_per_s < -5%", False),
        ("kv.preemptions > +0%", False),
        ("kv.preemptions > +1", False),
    ],
)
def test_a_condition_means_what_it_says(contrasts, text, holds):
    assert Gate(text).holds(contrasts[0]) is holds


def test_what_failed_names_the_run_and_the_figures(contrasts):
    (told,) = failures([Gate("ttft_s.p99 > +5%"), Gate("ttft_s.p99 > +15%")], contrasts)
    assert told == "--fail-on 'ttft_s.p99 > +5%': b: ttft_s.p99 is 1.1 s after 1 s, +10 %"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttft_s.p98 > +5%", "did you mean 'ttft_s.p99'"),
        ("tft_s.p99 > 1", "did you mean 'ttft_s.p99'"),
        ("ttft_s.p99 > 5%", "has no sign"),
        ("ttft_s.p99", "is no condition"),
        ("ttft_s.p99 > +5% +", "is no condition"),
        ("", "is no condition"),
        ("print('x') > 1", "is no condition"),
        ("5 < ttft.p99", "knows no 'ttft.p99'"),
    ],
)
def test_what_is_no_condition_is_refused_as_it_was_written(text, said):
    with pytest.raises(UsageError) as refused:
        Gate(text)
    assert said in str(refused.value)
    assert f"--fail-on {text!r}" in str(refused.value)
    assert "relative" not in str(refused.value)


def test_a_figure_that_is_not_known_cannot_be_judged(contrasts):
    with pytest.raises(UsageError, match=r"energy\.total_j is not known of both runs"):
        Gate("energy.total_j > +5%").holds(contrasts[0])


def test_nothing_is_a_share_of_nothing(contrasts, make_run):
    after = make_run(np.full(200, 1.0))
    after.summary["kv"]["preemptions"] = 3
    (contrast,) = compare([make_run(np.full(200, 1.0)), after], ["a", "b"]).contrasts
    with pytest.raises(UsageError, match="is 0 in the first run"):
        Gate("kv.preemptions > +5%").holds(contrast)
    assert Gate("kv.preemptions > +2").holds(contrast)
