"""What each command loads: a light ``--help``, and no torch where nothing is measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "pandas", "pyarrow", "torch", "plotly", "scipy", "simpy", "pydantic", "rich")

SPY = """
import sys
sys.argv = ["simslm", *{arguments!r}]
from simslm.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
import json
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded_by(code: str, cwd) -> set[str]:
    """The top-level modules that are loaded once ``code`` has run."""
    ended = subprocess.run((sys.executable, "-c", code), capture_output=True, cwd=cwd, check=True)
    return {name.partition(".")[0] for name in json.loads(ended.stderr.splitlines()[-1])}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("simulate", "--help")])
def test_help_is_light(here, arguments):
    heavy = set(HEAVY) - ({"pydantic"} if len(arguments) > 1 else set())  # typer parses arguments with it
    assert not loaded_by(SPY.format(arguments=arguments), here) & heavy


@pytest.mark.slow
def test_simulate_loads_no_torch(scenario, here):
    loaded = loaded_by(SPY.format(arguments=("simulate", str(scenario))), here)
    assert "simpy" in loaded
    assert not loaded & {"torch", "rich"}


@pytest.mark.slow
def test_the_core_is_light(here):
    code = "import simslm.sim.world, sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    loaded = loaded_by(code, here)
    assert "simpy" in loaded
    assert not loaded & {"torch", "pandas", "plotly", "rich", "typer"}


def test_the_package_itself_is_nothing(here):
    code = "import simslm, sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    assert not loaded_by(code, here) & {*HEAVY, "typer"}
