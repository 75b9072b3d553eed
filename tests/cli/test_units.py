"""Figures on screens are written as people write them: no exponents, and what rounding left of nought is nought."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.units import bytes_, change, flops, joules, number, seconds

EXPONENT = re.compile(r"\de[+-]?\d")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (4.55e-13, "0"),
        (-4.55e-13, "0"),
        (1.25e-05, "0.0000125"),
        (0.0312, "0.0312"),
        (0.7, "0.7"),
        (12.0, "12"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1,000"),
        (1420.4, "1,420"),
        (-0.00123, "-0.00123"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_number(value: float | None, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(14.2, "+1,420 %"), (-0.0035, "-0.35 %"), (0.0, "0 %"), (1e-16, "0 %"), (0.16, "+16 %"), (None, "–")],
)
def test_a_change(share: float | None, text: str):
    assert change(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"),
        (1e-15, "0 ms"),
        (0.99996, "1 s"),
        (0.0009999, "1 ms"),
        (3.214, "3.21 s"),
        (119.0, "119 s"),
        (125.0, "2 min 05 s"),
        (7300.0, "2.0 h"),
    ],
)
def test_a_duration(value: float, text: str):
    assert seconds(value) == text


def test_an_energy_that_rounding_left():
    assert (joules(4.55e-13), joules(999.7), joules(34100.0)) == ("0 J", "1,000 J", "34.1 kJ")


@given(st.floats(-1e15, 1e15), st.integers(1, 6))
def test_nothing_has_an_exponent(value: float, digits: int):
    for text in (number(value, digits), seconds(value), joules(value), change(value), flops(abs(value))):
        assert not EXPONENT.search(text)
    assert not EXPONENT.search(bytes_(abs(value)))


@given(st.floats(1e-11, 999), st.integers(2, 5))
def test_a_number_is_the_value_to_its_digits(value: float, digits: int):
    assert float(number(value, digits).replace(",", "")) == pytest.approx(value, rel=0.6 * 10 ** (1 - digits))
