"""Scenarios to be broken, and how each may end: in an answer that keeps every invariant, or in one clear error."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest

from simslm.api import load_scenario, prepare, simulate
from simslm.errors import SimslmError
from simslm.metrics.result import Result
from support.invariants import check

SECONDS = 20
"""Whatever takes longer hangs."""


@pytest.fixture(autouse=True)
def never_hangs() -> Generator[None]:
    """Whatever takes longer has not ended."""

    def hung(_signal: int, _frame: Any) -> None:
        raise TimeoutError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def scenario(**overrides: Any) -> dict:
    """A scenario of 40 requests on a device that holds them all; keys with ``__`` between their parts replace."""
    given: dict = {
        "name": "hostile",
        "model": "opt-125m",
        "device": "h200",
        "cost": {"roofline": {}},
        "workload": {
            "num_requests": 40,
            "arrivals": {"process": "poisson", "rate_rps": 20},
            "prompt_tokens": {"dist": "uniform", "low": 1, "high": 300},
            "output_tokens": {"dist": "uniform", "low": 1, "high": 50},
        },
        "deployment": {"engine": {"max_num_seqs": 16, "num_gpu_blocks": 500}},
    }
    for key, value in overrides.items():
        section, *path = key.split("__")
        node, last = (given, section) if not path else (given.setdefault(section, {}), path[-1])
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[last] = value
    return given


def answer(given: dict) -> Result:
    """The result of a scenario, held to every invariant."""
    loaded = load_scenario(given)
    result = simulate(loaded)
    check(result, prepare(loaded).deployment())
    return result


def counts(result: Result) -> tuple[int, int, int]:
    """Requests finished, rejected and failed; they are all that arrived."""
    found = result.summary["requests"]
    assert found["unfinished"] == 0
    assert found["arrived"] == found["finished"] + found["rejected"] + found["failed"]
    return found["finished"], found["rejected"], found["failed"]


def refusal(given: dict) -> SimslmError:
    """The one error that a scenario ends in: a message, and the exit code of its class."""
    with pytest.raises(SimslmError) as caught:
        answer(given)
    error = caught.value
    assert type(error) is not SimslmError
    assert 2 <= error.exit_code <= 5
    assert len(error.message) > 10
    assert "Traceback" not in str(error)
    return error
