"""Millions of requests simulated from a Parquet file, a piece at a time, with all files and the page."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import peak_bytes

from simslm.api import load_scenario, observed, prepare, simulate
from simslm.metrics.books import Forget
from simslm.metrics.files import RunWriter
from simslm.report import write_report
from simslm.workload.generate import generated_pieces
from simslm.workload.supply import RequestStream
from simslm.workload.written import write_requests

REPLAYED = 30_000_000

LOAD = 0.85

SHORT_ANSWERS: dict[str, Any] = {
    "name": "replayed",
    "model": "opt-125m",
    "device": "h200",
    "cost": {"roofline": {}},
    "workload": {
        "num_requests": 20_000,
        "arrivals": {"process": "all-at-once"},
        "prompt_tokens": {"dist": "lognormal", "mean": 64, "p95": 150, "max": 500},
        "output_tokens": {"dist": "lognormal", "mean": 8, "p95": 20, "max": 64},
    },
    "deployment": {"engine": {"max_num_batched_tokens": 8192}},
    "slo": {"ttft_s": 0.01},
}
"""Short prompts and answers, so that thirty million of them take minutes."""


@dataclass(frozen=True)
class Replayed:
    """What it took; times in seconds of processor time, all threads together.

    Attributes:
        requests: simulated.
        rows: in which they were held.
        simulate_s: reading, simulating and writing all files.
        page_s: making the page.
        file_bytes: of all files of the run.
        peak_bytes: resident memory of the process at its peak.
    """

    requests: int
    rows: int
    simulate_s: float
    page_s: float
    file_bytes: int
    peak_bytes: int


def measure_replaying(requests: int = REPLAYED) -> Replayed:
    """Writes requests to Parquet and simulates them from there; to be called in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path, directory = Path(folder) / "requests.parquet", Path(folder) / "run"
        _write(path, requests)
        scenario = load_scenario(SHORT_ANSWERS, {"workload.replay": {"path": str(path)}})
        begun = time.process_time()
        prepared = prepare(scenario)
        if not isinstance(prepared.workload, RequestStream):
            raise RuntimeError(f"{requests:,} requests are held whole")
        del prepared
        with RunWriter(directory) as writer:
            result = simulate(scenario, sink=writer, with_intervals=False)
            writer.finish(result)
        between = time.process_time()
        write_report([directory])
        page_s = time.process_time() - between
        size = sum(each.stat().st_size for each in directory.iterdir())
        finished, rows = result.summary["requests"]["finished"], len(result.log.arrival_s)
        if finished != requests:
            raise RuntimeError(f"{finished:,} of {requests:,} requests finished")
        return Replayed(requests, rows, between - begun, page_s, size, peak_bytes())


def _write(path: Path, requests: int) -> None:
    """The requests of a load that the scenario can bear."""
    at_once = observed(prepare(load_scenario(SHORT_ANSWERS)), sink=Forget()).summary
    rate = round(LOAD * at_once["throughput"]["requests_per_s"], 1)
    own = {"arrivals": {"process": "poisson", "rate_rps": rate}, "num_requests": requests}
    workload = load_scenario(
        SHORT_ANSWERS, {f"workload.{name}": value for name, value in own.items()}
    ).workload
    write_requests(path, generated_pieces(workload, 0, 1 << 20, path.parent), path.suffix)
