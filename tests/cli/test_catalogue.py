"""``simslm list``, ``env`` and ``schema``: what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import SCENARIO
from cli.json_schema import faults
from ruamel.yaml import YAML

from simslm.cli import list as listing

ROOT = Path(__file__).parents[2]


def test_list_models_devices_policies(simslm):
    for what, column, some in (
        ("models", "model", {"opt-125m", "llama-2-7b", "qwen3-8b"}),
        ("devices", "device", {"h200", "l4", "cpu"}),
        ("policies", "policy", {"prefill-first", "chunked-prefill", "round-robin"}),
    ):
        rows = json.loads(simslm("list", what, "--json").out)
        named = [row[column] for row in rows]
        assert some <= set(named)
        text = simslm("list", what).out
        assert all(name in text for name in named)


def test_list_scenarios(simslm, here):
    shipped = json.loads(simslm("list", "scenarios", "--json").out)
    assert str(ROOT / "scenarios" / "quickstart.yaml") in [row["scenario"] for row in shipped]
    (here / "scenarios" / "deeper").mkdir(parents=True)
    (here / "scenarios" / "one.yaml").write_text("# What one asks.\nname: one\n", encoding="utf-8")
    (here / "scenarios" / "deeper" / "two.yaml").write_bytes(b"\xff\xfe no text")
    assert json.loads(simslm("list", "scenarios", "--json").out) == [
        {"scenario": "scenarios/deeper/two.yaml", "what it asks": ""},
        {"scenario": "scenarios/one.yaml", "what it asks": "What one asks."},
    ]
    assert "What one asks." in simslm("list", "scenarios").out


def test_list_scenarios_where_there_are_none_says_where_they_would_be(simslm, here, monkeypatch):
    monkeypatch.setattr(listing, "CHECKOUT", here)
    ended = simslm("list", "scenarios")
    assert (ended.code, ended.out) == (0, "")
    assert "below scenarios/" in ended.err
    assert "simslm schema" in ended.err
    assert json.loads(simslm("list", "scenarios", "--json").out) == []


def test_env(simslm):
    found = json.loads(simslm("env", "--json").out)
    assert found["python"].startswith("3.")
    assert found["packages"]["simpy"]
    assert found["gpus"] or found["gpu_note"]
    assert "simpy" in simslm("env").out


def load(text: str) -> dict:
    return YAML(typ="safe").load(text)


@pytest.fixture
def schema(simslm) -> dict:
    ended = simslm("schema")
    assert ended.err == ""
    return json.loads(ended.out)


def test_the_schema_accepts_what_is_shipped(schema):
    assert faults(load(SCENARIO), schema) == []
    for path in (ROOT / "scenarios").rglob("*.yaml"):
        assert faults(load(path.read_text(encoding="utf-8")), schema) == [], path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_num_seqs", "max_num_seq"),
        ("rate_rps: 2", "rate_rps: -2"),
        ("num_requests: 30", "num_requests: many"),
        ("round-robin", "magic"),
        ("schema_version: 1", "schema_version: 2"),
        ("model: opt-125m", "mode: opt-125m"),
    ],
)
def test_the_schema_refuses_what_is_wrong(schema, old, new):
    assert faults(load(SCENARIO.replace(old, new)), schema)
