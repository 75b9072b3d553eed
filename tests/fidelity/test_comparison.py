"""Errors and their summary, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fidelity.conftest import unmeasured

from simslm.fidelity.comparison import Comparison, relative_error, summarize


def compared(measured: dict[str, float], simulated: dict[str, float]) -> Comparison:
    return Comparison(replace(unmeasured(4), measured=measured), simulated)


def test_an_error_is_signed_and_relative_to_what_was_measured():
    assert relative_error(100, 110) == pytest.approx(0.10)
    assert relative_error(100, 80) == pytest.approx(-0.20)
    assert relative_error(100, 0) == -1
    assert relative_error(0, 0) == 0
    assert relative_error(0, 3) is None


def test_only_what_both_have_has_an_error():
    comparison = compared({"itl_mean_s": 2.0, "power_idle_w": 40.0}, {"itl_mean_s": 1.0, "ttft_mean_s": 9.0})
    assert comparison.error == {"itl_mean_s": -0.5}


def test_the_summary():
    errors = [0.10, -0.20, 0.30, -0.05, 0.0]
    rows = [compared({"itl_mean_s": 1.0, "preemptions": 0.0}, {"itl_mean_s": 1 + e, "preemptions": 5.0})
            for e in errors]  # fmt: skip
    rows.append(compared({"preemptions": 0.0}, {"preemptions": 0.0}))
    found = summarize(rows)
    assert list(found) == ["itl_mean_s", "preemptions"]
    assert found["itl_mean_s"] == pytest.approx(
        {"n": 5, "median_abs_error": 0.10, "p95_abs_error": 0.28, "max_abs_error": 0.30, "bias": 0.03}
    )
    assert found["preemptions"]["n"] == 1


def test_nothing_compared_has_no_summary():
    assert summarize([]) == {}
