"""Millions of requests to a file and back, a piece at a time."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measuring import peak_bytes

from simslm.scenario.workload import Workload
from simslm.workload.generate import generated_pieces
from simslm.workload.readers import read_pieces
from simslm.workload.written import write_requests

REQUESTS = 30_000_000
"""As many as the week of conversations of the Azure LLM inference trace 2024 has, rounded up (27,303,999)."""

CONVERSATION = {
    "arrivals": {"process": "poisson", "rate_rps": 45.15},
    "prompt_tokens": {"dist": "lognormal", "mean": 1155, "p95": 3200, "max": 14_050},
    "output_tokens": {"dist": "lognormal", "mean": 211, "p95": 520, "max": 1_000},
}


@dataclass(frozen=True)
class Streamed:
    """What it took; times in seconds of processor time, all threads together.

    Attributes:
        requests: generated, written and read.
        write_s: generating and writing them.
        read_s: reading them.
        file_bytes: size of the file.
        peak_bytes: resident memory of the process at its peak.
        least_bytes: the same for a hundredth of the requests.
    """

    requests: int
    write_s: float
    read_s: float
    file_bytes: int
    peak_bytes: int
    least_bytes: int


def measure_streaming(requests: int = REQUESTS) -> Streamed:
    """Writes requests to Parquet and reads them; to be called in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "requests.parquet"
        _there_and_back(path, requests // 100)
        least = peak_bytes()
        write_s, read_s = _there_and_back(path, requests)
        return Streamed(requests, write_s, read_s, path.stat().st_size, peak_bytes(), least)


def _there_and_back(path: Path, requests: int) -> tuple[float, float]:
    workload = Workload.model_validate({**CONVERSATION, "num_requests": requests})
    begun = time.process_time()
    written = write_requests(path, generated_pieces(workload, 0, 1 << 20, path.parent), path.suffix)
    between = time.process_time()
    read = sum(len(piece) for piece in read_pieces(path))
    if not written == read == requests:
        raise RuntimeError(f"{requests:,} requests, {written:,} written, {read:,} read")
    return between - begun, time.process_time() - between
