"""Conditions mean what they say, and nothing but comparisons of known names is one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simslm.condition import LONGEST, Condition
from simslm.errors import UsageError

VALUES = {"clock": 1980.0, "workload": "fixed", "batch": 64, "unknown": None, "itl.p95": 0.03}


def holds(text: str) -> bool:
    return Condition(text, VALUES, "--where").holds(VALUES)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("clock == 1980", True),
        ("clock != 1980", False),
        ("  batch >= 64 ", True),
        ("batch > 64", False),
        ("1 < batch <= 64", True),
        ("1 < batch < 64", False),
        ("64 == batch", True),
        ("workload == 'fixed'", True),
        ('workload == "fixed" and batch == 1', False),
        ("workload == 'chat' or batch == 64", True),
        ("not batch == 64", False),
        ("not (batch == 1 or clock < 5)", True),
        ("batch in (32, 64)", True),
        ("batch not in [32, 64]", False),
        ("workload in ('fixed',)", True),
        ("itl.p95 > 0.02", True),
        ("itl.p95 > -1.5", True),
        ("unknown == 1", False),
        ("unknown != 1", True),
        ("unknown > 1", False),
        ("unknown <= 1", False),
        ("unknown in (1, 2)", False),
        ("workload == 5", False),
    ],
)
def test_what_holds(text, truth):
    assert holds(text) is truth


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clock",
        "1",
        "clock = 1980",
        "clock == ",
        "clock is 1980",
        "clock + 1 == 1981",
        "clock == True",
        "clock == None",
        "batch in 64",
        "batch in workload",
        "workload in 'fixed'",
        "batch in ((1, 2), 3)",
        "-batch < 0",
        "f'{clock}' == 1",
        "len(workload) == 5",
        "__import__('os').system('true') == 0",
        "[x for x in (1,)] == 1",
        "(lambda: 1)() == 1",
        "clock == 1; batch == 2",
        "clock == 1980 # and so on\nbatch == 1",
        "x := 1",
        "clock == " + "9" * LONGEST,
        "(" * 500 + "batch == 1" + ")" * 400,
    ],
)
def test_what_is_no_condition(text):
    with pytest.raises(UsageError, match=r"--where .*is no condition; write comparisons"):
        Condition(text, VALUES, "--where")


@pytest.mark.parametrize("text", ["clok == 1980", "batch == 64 and clok > 1", "itl.p59 > 1", "itl > 1"])
def test_an_unknown_name_is_named(text):
    with pytest.raises(UsageError, match=r"knows no '(clok|itl.p59|itl)'"):
        Condition(text, VALUES, "--where")


def test_the_nearest_name_is_offered():
    with pytest.raises(UsageError, match=r"did you mean 'clock'\?"):
        Condition("clok == 1980", VALUES, "--where")


def test_texts_and_numbers_have_no_order():
    with pytest.raises(UsageError, match="cannot compare 'fixed' with 5"):
        holds("workload > 5")


def test_it_says_what_it_speaks_of():
    assert Condition("batch > 1 and not (clock == 2 or batch < 9)", VALUES, "").names() == ["batch", "clock"]
    assert Condition("itl.p95 > 1", VALUES, "").names() == ["itl.p95"]


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_refused(text):
    with contextlib.suppress(UsageError):
        Condition(text, VALUES, "--where").holds(VALUES)
