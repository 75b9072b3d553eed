"""A search that takes a second: OPT-1.3B on the roofline of an H200, and the same worked out by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from simslm.api import load_scenario, simulate

BATCHES = [1, 2, 4, 8, 16, 32]
BUDGETS = [64, 256, 1024]
OBJECTIVES = {"throughput.output_tokens_per_s": "max", "itl_s.p50": "min"}


@pytest.fixture
def searched(small: dict) -> dict:
    """Batch limits and token budgets, everything at once, 40 requests; 18 points, and any difference counts."""
    mapping = copy.deepcopy(small)
    mapping["workload"] |= {"num_requests": 40, "arrivals": {"process": "all-at-once"}}
    mapping["deployment"] = {"engine": {"max_num_seqs": 8}}
    mapping["search"] = {
        "space": {
            "deployment.engine.max_num_seqs": list(BATCHES),
            "deployment.engine.max_num_batched_tokens": list(BUDGETS),
        },
        "objectives": dict(OBJECTIVES),
        "replications": 1,
        "margin": 0,
        "slo": "ignored",
    }
    return mapping


def dig(summary: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        summary = summary[key]
    return summary


Table = list[tuple[dict[str, Any], list[list[float]]]]
"""Points, and for each and every seed its gains."""


@pytest.fixture
def table(searched: dict) -> Callable[..., Table]:
    """Every point simulated by itself under some seeds, with the signs turned so that more is better."""

    def run(seeds: int, objectives: dict[str, str] = OBJECTIVES) -> Table:
        plain = {key: value for key, value in searched.items() if key != "search"}
        rows = []
        for batch in BATCHES:
            for budget in BUDGETS:
                engine = {"max_num_seqs": batch, "max_num_batched_tokens": budget}
                point = {f"deployment.engine.{key}": value for key, value in engine.items()}
                gains = []
                for seed in range(seeds):
                    changed = plain | {"deployment": {"engine": engine}, "seed": seed}
                    summary = simulate(load_scenario(changed)).summary
                    gains.append(
                        [dig(summary, path) * (1 if way == "max" else -1) for path, way in objectives.items()]
                    )
                rows.append((point, gains))
        return rows

    return run


def as_set(points: Iterable[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {tuple(point.items()) for point in points}
