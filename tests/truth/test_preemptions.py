"""How often vLLM 0.6.3 preempted, against its own counts: fixed lengths, all requests at once, so no cost matters."""

from __future__ import annotations

from pathlib import Path

import pytest

import simslm
from simslm.runs.replay import scenario_of
from simslm.runs.table import read_runs

TRACES = Path(__file__).parents[2] / "traces" / "h100-64gb"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "measured"),
    [
        ("advisor/output_length/_260/llama-2-7b/_256__2000", 225),
        ("advisor/output_length/_520/llama-2-7b/_512__2000", 778),
        ("advisor/output_length/_520/opt-2.7b/_512__2000", 456),
    ],
)
def test_preemptions_are_those_that_the_engine_counted(truth, run, measured):
    """Without ``spare_block`` they are 224, 779 and 453."""
    (found,) = (each for each in read_runs(truth / "h100-vllm" / "runs.csv") if each.run == run)
    scenario = scenario_of(found, {"trace": str(TRACES / f"{found.model}-fp16")}, dtype="fp16")
    assert scenario.deployment.engine.spare_block
    assert found.measured["preemptions"] == measured
    assert simslm.simulate(scenario, with_intervals=False).summary["kv"]["preemptions"] == measured
