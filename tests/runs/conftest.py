"""A small table of measured runs, written by hand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

ROW = {
    "run": "one",
    "model": "opt-1.3b",
    "device": "h200",
    "engine": "vllm-0.6.3-v0",
    "workload": "fixed",
    "prompt_tokens": "100",
    "output_tokens": "20",
    "lengths_file": "",
    "num_requests": "40",
    "arrivals": "all-at-once",
    "max_num_seqs": "8",
    "max_num_batched_tokens": "512",
    "batching": "chunked-prefill",
    "replicas": "1",
    "sharing": "none",
    "num_gpu_blocks": "1000",
    "output_tokens_per_s": "900.5",
    "ttft_mean_s": "0.25",
    "power_active_p50_w": "",
    "sm_clock_mhz": "1980",
}

Write = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Writes a ``RUNS.csv``: a row for each mapping of what is different in it."""

    def write(*rows: dict[str, str], without: tuple[str, ...] = ()) -> Path:
        path = tmp_path / "RUNS.csv"
        columns = {
            name: "" for row in ({**ROW, **row} for row in rows) for name in row if name not in without
        }
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
            writer.writeheader()
            writer.writerows({**ROW, **row} for row in rows)
        return path

    return write
