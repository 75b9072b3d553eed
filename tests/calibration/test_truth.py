"""The shipped calibrated traces, each fitted to six runs of a public study, against the study's other runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from simslm.api import simulate
from simslm.runs.replay import scenario_of, simulated
from simslm.runs.table import MeasuredRun, read_runs
from simslm.traces.files import read_trace
from simslm.traces.terms import read_terms

ROOT = Path(__file__).parents[2]
TRACES = {model: ROOT / "traces/h100-64gb" / f"{model}-fp16" for model in ("opt-2.7b", "llama-2-7b")}
SLOW_CLOCK_MHZ = 1605
COMPARED = ("output_tokens_per_s", "itl_mean_s", "tpot_mean_s", "ttft_mean_s", "power_active_p50_w")
Errors = Mapping[str, list[float]]


def kind(run: MeasuredRun, fitted: set[str]) -> str:
    if run.run in fitted:
        return "fitted"
    if run.replicas > 1:
        return "replicas"
    return "preempting" if run.measured["preemptions"] else run.workload


@pytest.fixture(scope="module", params=TRACES)
def compared(request, truth) -> tuple[str, dict[str, Errors], list[tuple[float, float]]]:
    """Model, errors by kind of run and metric, and measured with simulated preemptions."""
    model = request.param
    trace = read_trace(TRACES[model])
    fitted, startup_s = set(trace.provenance["runs"]), read_terms(trace)["startup"]
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    preemptions = []
    for run in read_runs(truth / "h100-vllm/runs.csv"):
        which = kind(run, fitted)
        if run.model != model or run.sm_clock_mhz == SLOW_CLOCK_MHZ or which == "replicas":
            continue
        scenario = scenario_of(run, {"trace": str(TRACES[model])}, dtype="fp16")
        found = simulated(simulate(scenario, with_intervals=False), run, startup_s)
        for metric in COMPARED:
            errors[which][metric].append(abs(found[metric] / run.measured[metric] - 1))
        if which == "preempting" and run.workload == "fixed":
            preemptions.append((run.measured["preemptions"], found["preemptions"]))
    return model, errors, preemptions


def held(errors: Errors, metric: str, median: float, p95: float) -> None:
    found = errors[metric]
    assert np.median(found) <= median, metric
    assert np.quantile(found, 0.95) <= p95, metric


@pytest.mark.slow
def test_other_lengths_and_batches(compared):
    _, errors, _ = compared
    for metric in ("output_tokens_per_s", "itl_mean_s"):
        held(errors["fixed"], metric, 0.02, 0.06)
    held(errors["fixed"], "ttft_mean_s", 0.05, 0.1)
    held(errors["fixed"], "power_active_p50_w", 0.05, 0.12)


def test_conversations_under_another_scheduler(compared):
    _, errors, _ = compared
    for metric in ("output_tokens_per_s", "itl_mean_s"):
        held(errors["sharegpt"], metric, 0.025, 0.06)


def test_preemptions_of_requests_of_one_length(compared):
    _, errors, preemptions = compared
    held(errors["preempting"], "output_tokens_per_s", 0.04, 0.13)
    assert all(abs(found - measured) <= 10 for measured, found in preemptions)
