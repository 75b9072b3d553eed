"""The document of the table names every column, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from simslm.runs.table import ARRIVALS, BATCHINGS, LATENCIES, MEASURED, SETTINGS, STATISTICS

DOCUMENT = Path(__file__).parents[2] / "docs" / "measured-runs.md"


def test_the_document_has_every_column():
    text = DOCUMENT.read_text(encoding="utf-8")
    first = re.findall(r"^\| (`.*?`)[ …]*\|", text, re.MULTILINE)
    named = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    spreads = {f"{latency}_{statistic}_s" for latency in LATENCIES for statistic in STATISTICS}
    assert named - {"ttft_mean_s"} == {*SETTINGS, *MEASURED} - spreads
    (row,) = re.findall(r"^\| `ttft_mean_s` … \|(.*)$", text, re.MULTILINE)
    assert re.findall(r"`([\w ]+)`", row) == [*LATENCIES, " ".join(STATISTICS)]


def test_the_document_has_every_choice():
    text = DOCUMENT.read_text(encoding="utf-8")
    for choice in (*BATCHINGS, *re.findall(r"[a-z-]+(?::[A-Z]+)*", ARRIVALS.replace(" or ", ", "))):
        assert f"`{choice}`" in text, choice
