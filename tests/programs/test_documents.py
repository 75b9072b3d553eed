"""What the guide says is so: its commands run, its table is what comes out, its examples are valid."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from simslm.api import load_scenario, simulate
from simslm.cli import main
from simslm.scenario.classes import Traffic
from simslm.scenario.programs import Graph, ProgramSpec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "sessions.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
LINES = [
    line
    for block in BLOCK.finditer(GUIDE)
    if block["language"] == "sh"
    for line in block["text"].splitlines()
]
TABLE = re.findall(
    r"^\| `(deployment[^`]+)` \| ([\d.]+) % \| ([\d.]+) ms \| ([\d.]+) ms \|$", GUIDE, re.MULTILINE
)


@pytest.fixture
def simslm(tmp_path, monkeypatch, capsys):
    """The command line in a folder with the scenarios and traces of this repository in it."""
    for name in ("scenarios", "traces"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["simslm", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("line", LINES)
def test_its_commands_run(simslm, line):
    assert simslm(*shlex.split(line, comments=True)[1:])


def test_the_bounds_of_chat_are_kept_by_priority_alone(simslm):
    """What the comment behind the last command says."""
    for policy, word in (("priority", "SLO met"), ("fcfs", "SLO missed")):
        setting = f"deployment.engine.scheduling_policy={policy}"
        assert simslm("simulate", "scenarios/tenants.yaml", "--set", setting).startswith(word)


@pytest.mark.parametrize(("setting", "share", "middle_ms", "tail_ms"), TABLE)
def test_its_table_is_what_comes_out(setting, share, middle_ms, tail_ms):
    scenario = load_scenario(ROOT / "scenarios" / "chat.yaml", [setting])
    summary = simulate(scenario, with_intervals=False).summary
    assert f"{100 * summary['kv']['cached_prompt_share']:.1f}" == share
    assert [f"{1e3 * summary['ttft_s'][name]:.1f}" for name in ("p50", "p99")] == [middle_ms, tail_ms]


def test_it_has_a_table_commands_and_every_kind():
    assert len(TABLE) == 4
    assert len(LINES) == 6
    members = ProgramSpec.__origin__.__args__  # type: ignore[attr-defined]
    kinds = [member.model_fields["kind"].annotation.__args__[0] for member in members]
    for member, kind in zip(members, kinds, strict=True):
        (row,) = re.findall(rf"^\| `{kind}` \|.*$", GUIDE, re.MULTILINE)
        own = set(member.model_fields) - {"kind", "system_prompt_tokens", "reasoning_tokens"}
        assert set(re.findall(r"`(\w+)`", row.rpartition("|")[0].rpartition("|")[2])) == own


@pytest.mark.parametrize(
    "text", [each["text"] for each in BLOCK.finditer(GUIDE) if each["language"] == "yaml"]
)
def test_its_examples_are_valid(text):
    from ruamel.yaml import YAML

    found = json.loads(json.dumps(YAML(typ="safe").load(text)))
    if isinstance(found, list):
        assert [Graph.model_validate_json(json.dumps(each)) for each in found]
    else:
        assert Traffic.model_validate_json(json.dumps(found["workload"])).arrivals is not None
