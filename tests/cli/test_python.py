"""The Python interface, as promised: ``load_scenario`` and ``simulate``."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
from cli.test_simulate import ITERATIONS, REQUESTS

import simslm as package


def test_what_python_gives_is_what_the_files_hold(simslm, scenario, here):
    result = package.simulate(package.load_scenario(scenario))
    assert simslm("simulate", scenario, "-o", "out").code == 0
    assert list(result.requests.columns) == REQUESTS
    assert list(result.iterations.columns) == ITERATIONS
    pd.testing.assert_frame_equal(result.requests, pq.read_table(here / "out/requests.parquet").to_pandas())
    pd.testing.assert_frame_equal(
        result.iterations, pq.read_table(here / "out/iterations.parquet").to_pandas()
    )
    assert result.summary == json.loads((here / "out/summary.json").read_text(encoding="utf-8"))


def test_overrides_as_text_and_as_values(scenario):
    text = package.load_scenario(scenario, ["workload.num_requests=7", "slo=null"])
    values = package.load_scenario(scenario, {"workload.num_requests": 7, "slo": None})
    assert text.model_dump() == values.model_dump()
    assert package.simulate(text).summary["requests"]["arrived"] == 7


def test_two_runs_in_one_process_do_not_touch_each_other(scenario):
    first = package.simulate(package.load_scenario(scenario)).summary
    package.simulate(package.load_scenario(scenario, {"deployment.num_devices": 3}))
    assert package.simulate(package.load_scenario(scenario)).summary == first


def test_nothing_else_answers_to_a_name():
    assert callable(package.load_scenario)
    assert not hasattr(package, "nonsense")
