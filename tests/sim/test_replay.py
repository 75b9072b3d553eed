"""Half an hour of real traffic through the whole chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.csv
import pytest
from support.invariants import check

from simslm.api import load_scenario, prepare, simulate

PROGRAM = """
import hashlib, json, sys
from simslm.api import load_scenario, simulate
from simslm.metrics.files import requests_arrow
result = simulate(load_scenario(json.loads(sys.argv[1])))
digest = hashlib.sha256(json.dumps(result.summary).encode())
for column in requests_arrow(result.request_columns).columns:
    for buffer in column.combine_chunks().buffers():
        digest.update(buffer or b"")
print(digest.hexdigest())
"""


def azure(workloads, time_scale: float) -> dict:
    return {
        "name": "azure",
        "model": "opt-1.3b",
        "device": "h200",
        "cost": {"roofline": {}},
        "workload": {
            "replay": {
                "format": "azure-2023",
                "path": str(workloads / "azure2023_conv.csv"),
                "time_scale": time_scale,
            }
        },
        "deployment": {"num_devices": 2, "router": {"policy": "least-outstanding"}},
        "slo": {"ttft_s": 0.5, "tpot_s": 0.05},
    }


@pytest.mark.slow
@pytest.mark.parametrize("time_scale", [1.0, 0.25])
@pytest.mark.parametrize("batching", ["prefill-first", "chunked-prefill"])
def test_azure_conversation(workloads, time_scale, batching):
    """All 9,754 rows: those beyond the context rejected and counted, the rest conserved, in order, and finished."""
    scenario = load_scenario(azure(workloads, time_scale), {"deployment.engine.batching.policy": batching})
    result = simulate(scenario)
    check(result, prepare(scenario).deployment())
    rows = pyarrow.csv.read_csv(workloads / "azure2023_conv.csv")
    lengths = rows["ContextTokens"].to_numpy() + rows["GeneratedTokens"].to_numpy()
    counts = result.summary["requests"]
    assert counts["arrived"] == 9754
    assert counts["rejected"] == np.count_nonzero(lengths > 2048)
    assert counts["finished"] == 9754 - counts["rejected"]
    served = rows["GeneratedTokens"].to_numpy()[lengths <= 2048].sum()
    per_second = result.summary["throughput"]["output_tokens_per_s"]
    assert per_second * result.summary["makespan_s"] == pytest.approx(served, rel=1e-12)


def digests(scenario: dict) -> set[str]:
    """What three processes with two hash seeds make of a scenario."""
    found = set()
    for hash_seed in ("1", "2", "2"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(scenario)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    return found


@pytest.mark.slow
def test_same_bytes_in_another_process_and_under_another_hash_seed(workloads):
    assert len(digests(azure(workloads, 0.25))) == 1


@pytest.mark.slow
def test_same_bytes_of_generated_traffic(small):
    shared = {"replicas_per_device": 2, "sharing": "mps", "router": "random"}
    assert len(digests(small | {"deployment": shared})) == 1
