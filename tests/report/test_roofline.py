"""The operators of a run under the roofline: from its manifest to words, drawing and tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from simslm.api import load_scenario, simulate
from simslm.report.provenance import provenance
from simslm.report.roofline import OPERATOR_COLUMNS, roofline_views
from simslm.report.tables import RunTables


@pytest.fixture
def run(small) -> RunTables:
    """The manifest of a real run, as its file holds it."""
    manifest = simulate(load_scenario(small)).manifest
    return RunTables({}, {}, {"name": "small"}, json.loads(json.dumps(manifest)))


def test_every_point_lies_on_the_roofline(run):
    """Analytic operators reach what the roofline allows, so intensity and ceiling give the speed."""
    (view,) = roofline_views(run, "run-1")
    found = run.manifest["groups"][0]["roofline"]
    ceiling, *phases = view.plot.figure["data"]
    assert ceiling["x"][1] == pytest.approx(found["flops_per_s"] / found["bytes_per_s"], rel=1e-5)
    assert [each["name"] for each in phases] == ["prefill", "decode, batch 1", "decode, batch 50"]
    assert [key.name for key in view.plot.legend] == [each["name"] for each in phases] + ["roofline"]
    for each in phases:
        for x, y in zip(each["x"], each["y"], strict=True):
            allowed = min(found["flops_per_s"], x * found["bytes_per_s"])
            assert y * 1e9 == pytest.approx(allowed, rel=1e-4)


def test_tables_hold_every_operator_and_shares_add_up(run):
    (view,) = roofline_views(run, "run-1")
    phases = run.manifest["groups"][0]["roofline"]["phases"]
    for table, phase in zip(view.tables, phases, strict=True):
        assert [row[0] for row in table.rows] == [each["name"] for each in phase["operators"]]
        assert {len(row) for row in table.rows} == {len(OPERATOR_COLUMNS)}
        total = sum(each["calls"] * each["seconds"] for each in phase["operators"])
        assert phase["seconds"] == pytest.approx(total)
    assert "Decode, batch 50" in view.tables[2].title


def test_words_say_what_bounds_each_phase(run):
    (view,) = roofline_views(run, "run-1")
    assert "opt-1.3b on h200" in view.words
    assert "Decode, batch 1: 100 % of the device time is bound by memory." in view.words


def test_a_changed_cost_is_said_to_be(run):
    """Of a measured source: what transforms changed about it is named, and that it was not measured."""
    group = dict(run.manifest["groups"][0]) | {"changed": ["weights (bits 4)"]}
    manifest = dict(run.manifest) | {
        "groups": [group],
        "cost": {"source": "measured", "engine": "e", "note": ""},
    }
    (words,) = [text for text in provenance(replace(run, manifest=manifest)).warnings if "weights" in text]
    assert words.startswith(
        "The device’s part of an iteration is not as measured, but changed by weights (bits 4)"
    )


def test_runs_of_older_versions_have_no_section(run):
    groups = [
        {name: value for name, value in group.items() if name != "roofline"}
        for group in run.manifest["groups"]
    ]
    assert roofline_views(replace(run, manifest=dict(run.manifest) | {"groups": groups}), "run-1") == []
    assert roofline_views(replace(run, manifest={}), "run-1") == []
