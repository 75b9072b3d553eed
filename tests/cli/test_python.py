"""The Python interface, as promised, and as its page shows it."""

from __future__ import annotations

import doctest
import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from cli.test_simulate import ITERATIONS, REQUESTS
from cli.transcript import furnish

import simslm as package
from simslm.metrics.result import Result
from simslm.search.run import SearchResult

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


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


@pytest.mark.slow
def test_what_the_page_types_gives_what_it_shows(here):
    """One after another, in a directory with the scenarios and traces."""
    furnish(here)
    typed = "\n".join(re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(typed, {}, "docs/python.md", "docs/python.md", 0)
    told: list[str] = []
    ended = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert ended.attempted > 15
    assert not ended.failed, "".join(told)


def attributes(cls: Any) -> set[str]:
    """What a result has for its user: fields and properties."""
    assert is_dataclass(cls)
    public = {name for name in vars(cls) if not name.startswith("_") and not callable(getattr(cls, name))}
    return public | {field.name for field in fields(cls)}


def test_the_page_names_the_whole_interface():
    missing = [name for name in package.__all__ if f"`simslm.{name}(" not in PAGE]
    for cls, name in ((Result, "result"), (SearchResult, "found")):
        missing += [f"{name}.{each}" for each in sorted(attributes(cls)) if f"`{name}.{each}`" not in PAGE]
    assert not missing
