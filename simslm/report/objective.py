"""The scenario's service level objective held against the requests of a run."""

from __future__ import annotations

import numpy as np

from simslm.report.tables import RunTables, dig, figure_of

SLO_METRICS = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
"""Bounds that a row of ``requests.parquet`` can be held to, hence those whose misses can be explained."""


def stated_bounds(run: RunTables) -> dict[str, float]:
    """The bounds of the scenario's SLO on what a request's row holds, in seconds; none where classes have their own."""
    if class_objectives(run):
        return {}
    bounds = {key: figure_of(run.scenario, f"slo.{key}") for key in SLO_METRICS}
    return {key: bound for key, bound in bounds.items() if bound is not None}


def class_objectives(run: RunTables) -> list[tuple[str, float, float]]:
    """Where classes have bounds of their own, every class that has any: its name, the share of its requests that kept
    them, and the share asked for."""
    classes = dig(run.scenario, "workload.classes", {})
    if not any(dig(each, "slo") for each in classes.values()):
        return []
    found = []
    for name, each in classes.items():
        slo = dig(each, "slo") or dig(run.scenario, "slo", {})
        reached = figure_of(dig(run.summary, "classes", {}).get(name), "slo.attainment")
        if slo and reached is not None:
            found.append((name, reached, figure_of(slo, "attainment") or 1.0))
    return found


def target(run: RunTables) -> float | None:
    """The share of arrived requests that must meet the SLO; all of them when only bounds are stated."""
    return figure_of(run.scenario, "slo.attainment") or (1.0 if stated_bounds(run) else None)


def slo_state(run: RunTables) -> str:
    """``met | missed | unstated``: met when the attainment reaches the share asked for, of each class that has one."""
    if classes := class_objectives(run):
        return "missed" if any(reached < asked for _, reached, asked in classes) else "met"
    reached, asked = figure_of(run.summary, "slo.attainment"), target(run)
    if reached is None or asked is None or not stated_bounds(run):
        return "unstated"
    return "met" if reached >= asked else "missed"


def within(run: RunTables, key: str, bound_s: float) -> np.ndarray:
    """Which arrived requests finished within one bound; one output token meets ``tpot_s`` by definition."""
    value = run.requests[key]
    good = value <= bound_s
    if key == "tpot_s":
        good |= np.isnan(value)
    return good & run.requests["finished"]


def good(run: RunTables) -> np.ndarray | None:
    """Which arrived requests finished within every stated bound; None when none is stated."""
    bounds = stated_bounds(run)
    if not bounds:
        return None
    return np.all([within(run, key, bound) for key, bound in bounds.items()], axis=0)
