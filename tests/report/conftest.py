"""Run directories made by a small deterministic model of a continuously batching replica.

It knows just enough to leave behind tables that hang together (conservation, causality, energy) in any
regime: bound by arrivals, batch, KV, prefill or host time.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

STATISTICS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass
class Setup:
    """A scenario, and iterations that cost fixed + sequence + context token + prompt token times."""

    name: str = "synthetic"
    num_requests: int = 300
    rate_rps: float = 6.0  # 0: all at once
    mean_prompt: int = 256
    mean_output: int = 64
    replicas: int = 1
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    num_gpu_blocks: int = 20_000
    host_s: float = 0.002
    fixed_s: float = 0.004
    per_seq_s: float = 2e-5
    per_ctx_s: float = 2e-8
    per_prompt_s: float = 1.5e-5
    idle_w: float = 90.0
    busy_w: float = 420.0
    power_note: str = ""
    source: str = "measured"
    in_domain: float = 0.997
    slo: dict[str, float] | None = field(
        default_factory=lambda: {"ttft_s": 0.5, "tpot_s": 0.05, "attainment": 0.9}
    )
    process: str = "poisson"
    seed: int = 7


@dataclass
class Sequence:
    index: int
    prompt: int
    output: int
    prefilled: int = 0
    emitted: int = 0
    blocks: int = 0


class Replica:
    """Chunked prefill after decodes, blocks reserved on admission, one row per iteration."""

    def __init__(self, setup: Setup, number: int, arrivals: list[tuple[float, Sequence]]) -> None:
        self.setup, self.number = setup, number
        self.coming = deque(arrivals)
        self.queue: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        self.rows: list[tuple[float, ...]] = []
        self.first_scheduled: dict[int, float] = {}
        self.first_token: dict[int, float] = {}
        self.finish: dict[int, float] = {}
        self.stages: list[list[Any]] = []
        self.decoding: dict[int, list[Any]] = {}
        self.gaps: list[float] = []

    def run(self) -> None:
        clock = 0.0
        while self.coming or self.queue or self.active:
            if not self.queue and not self.active:
                clock = max(clock, self.coming[0][0])
            while self.coming and self.coming[0][0] <= clock:
                self.queue.append(self.coming.popleft()[1])
            clock = self.iterate(clock)

    def iterate(self, clock: float) -> float:
        setup = self.setup
        decoding = [s for s in self.active if s.prefilled == s.prompt]
        chunks = self.chunks(clock, setup.max_num_batched_tokens - len(decoding))
        ctx = sum(s.prompt + s.emitted for s in decoding)
        tokens = sum(size for _, size in chunks)
        cached = sum(s.prefilled for s, _ in chunks)
        device = (
            setup.fixed_s
            + setup.per_seq_s * len(decoding)
            + setup.per_ctx_s * ctx
            + setup.per_prompt_s * tokens
        )
        duration = setup.host_s + device
        used = sum(s.blocks for s in self.active)
        watts = float("nan") if setup.power_note else setup.busy_w + 0.5 * len(decoding)
        shape = (len(decoding), ctx, len(chunks), tokens, cached)
        state = (len(self.queue), len(self.active), used, watts, setup.host_s)
        self.rows.append((self.number, clock, duration, *shape, *state))
        self.note(decoding, chunks, clock, clock + duration)
        self.advance(decoding, chunks, clock + duration)
        return clock + duration

    def chunks(self, clock: float, budget: int) -> list[tuple[Sequence, int]]:
        found = [(s, s.prompt - s.prefilled) for s in self.active if s.prefilled < s.prompt]
        free = self.setup.num_gpu_blocks - sum(s.blocks for s in self.active)
        chosen = []
        for sequence, left in found:
            chosen.append((sequence, min(left, budget)))
            budget -= chosen[-1][1]
        while self.queue and budget > 0 and len(self.active) < self.setup.max_num_seqs:
            sequence = self.queue[0]
            sequence.blocks = -(-(sequence.prompt + sequence.output) // 16)
            if sequence.blocks > free:
                break
            free -= sequence.blocks
            self.active.append(self.queue.popleft())
            self.first_scheduled[sequence.index] = clock
            chosen.append((sequence, min(sequence.prompt, budget)))
            budget -= chosen[-1][1]
        return [(sequence, size) for sequence, size in chosen if size]

    def note(
        self, decoding: list[Sequence], chunks: list[tuple[Sequence, int]], start: float, end: float
    ) -> None:
        """Stages, and the gaps between tokens."""
        for sequence, size in chunks:
            self.stages.append([sequence.index, self.number, "prefill", start, end, size, 1])
        for sequence in decoding:
            stage = self.decoding.get(sequence.index)
            if stage is None:
                stage = [sequence.index, self.number, "decode", start, self.first_token[sequence.index], 0, 0]
                self.decoding[sequence.index] = stage
                self.stages.append(stage)
            self.gaps.append(end - stage[4])
            stage[4:] = [end, 0, stage[6] + 1]

    def advance(self, decoding: list[Sequence], chunks: list[tuple[Sequence, int]], clock: float) -> None:
        for sequence in decoding:
            sequence.emitted += 1
        for sequence, size in chunks:
            sequence.prefilled += size
            if sequence.prefilled == sequence.prompt:
                sequence.emitted = 1
                self.first_token[sequence.index] = clock
        for sequence in [s for s in self.active if s.emitted >= s.output]:
            self.finish[sequence.index] = clock
            self.active.remove(sequence)


ITERATIONS = [
    "replica",
    "start_s",
    "duration_s",
    "decode_seqs",
    "decode_ctx_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_ctx_tokens",
    "waiting",
    "running",
    "kv_blocks_used",
    "power_w",
    "host_s",
]


STAGES = ["request_id", "replica", "kind", "start_s", "end_s", "tokens", "iterations"]


def simulate(setup: Setup) -> dict[str, pa.Table]:
    """The tables of a run of ``setup``."""
    random = np.random.default_rng(setup.seed)
    gaps = (
        random.exponential(1 / setup.rate_rps, setup.num_requests)
        if setup.rate_rps
        else np.zeros(setup.num_requests)
    )
    arrival = np.cumsum(gaps)
    prompt = np.clip(
        random.lognormal(np.log(setup.mean_prompt), 0.5, setup.num_requests).astype(int), 1, 4000
    )
    output = np.clip(
        random.lognormal(np.log(setup.mean_output), 0.4, setup.num_requests).astype(int), 1, 2000
    )
    coming = [
        (float(arrival[i]), Sequence(i, int(prompt[i]), int(output[i]))) for i in range(setup.num_requests)
    ]
    replicas = [Replica(setup, r, coming[r :: setup.replicas]) for r in range(setup.replicas)]
    for replica in replicas:
        replica.run()
    rows = sorted((row for replica in replicas for row in replica.rows), key=lambda row: (row[1], row[0]))
    iterations = pa.table({name: [row[i] for row in rows] for i, name in enumerate(ITERATIONS)})
    gaps = np.sort(np.array([gap for replica in replicas for gap in replica.gaps]))
    return {
        "requests": requests_table(setup, replicas, arrival, prompt, output),
        "iterations": iterations,
        "stages": pa.table(
            {
                name: [row[i] for replica in replicas for row in replica.stages]
                for i, name in enumerate(STAGES)
            }
        ),
        "gaps": pa.table({"itl_s": gaps, "share": np.arange(1, len(gaps) + 1) / max(len(gaps), 1)}),
    }


def requests_table(
    setup: Setup, replicas: list[Replica], arrival: np.ndarray, prompt: np.ndarray, output: np.ndarray
) -> pa.Table:
    def times(name: str) -> np.ndarray:
        merged = {index: at for replica in replicas for index, at in getattr(replica, name).items()}
        return np.array([merged.get(i, np.nan) for i in range(setup.num_requests)])

    scheduled, first, finish = times("first_scheduled"), times("first_token"), times("finish")
    gaps = np.where(output >= 2, output - 1, np.nan)
    return pa.table(
        {
            "request_id": np.arange(setup.num_requests),
            "arrival_s": arrival,
            "prompt_tokens": prompt,
            "output_tokens": output,
            "replica": np.arange(setup.num_requests) % setup.replicas,
            "first_scheduled_s": scheduled,
            "first_token_s": first,
            "finish_s": finish,
            "ttft_s": first - arrival,
            "tpot_s": pa.array((finish - first) / gaps, from_pandas=True),
            "e2e_s": finish - arrival,
            "queue_s": scheduled - arrival,
            "cached_prompt_tokens": np.zeros(setup.num_requests, dtype=int),
            "preemptions": np.zeros(setup.num_requests, dtype=int),
            "energy_j": pa.nulls(setup.num_requests, pa.float64()),
            "status": ["finished"] * setup.num_requests,
        }
    )


def statistics(values: np.ndarray) -> dict[str, float | None]:
    values = values[np.isfinite(values)]
    if not len(values):
        return dict.fromkeys(["mean", *STATISTICS, "max"])
    quantiles = {name: float(np.quantile(values, at)) for name, at in STATISTICS.items()}
    return {"mean": float(values.mean()), **quantiles, "max": float(values.max())}


def summarise(setup: Setup, requests: pa.Table, iterations: pa.Table) -> dict[str, Any]:
    row = {name: requests[name].to_numpy() for name in requests.column_names}
    log = {name: iterations[name].to_numpy() for name in iterations.column_names}
    makespan = float(np.max(row["finish_s"]) - np.min(row["arrival_s"]))
    output, both = int(row["output_tokens"].sum()), int((row["output_tokens"] + row["prompt_tokens"]).sum())
    busy, seqs = float(log["duration_s"].sum()), log["decode_seqs"].astype(int)
    gaps = np.repeat(log["duration_s"], seqs)
    met = attained(setup, row)
    return {
        "schema_version": 1,
        "name": setup.name,
        "requests": {"arrived": len(met), "finished": len(met), "rejected": 0, "failed": 0, "unfinished": 0},
        "makespan_s": makespan,
        "throughput": {
            "requests_per_s": len(met) / makespan,
            "output_tokens_per_s": output / makespan,
            "total_tokens_per_s": both / makespan,
        },
        **{key: statistics(row[key]) for key in ("ttft_s", "tpot_s", "e2e_s", "queue_s")},
        "itl_s": statistics(gaps),
        "slo": {"attainment": float(met.mean()), "goodput_rps": float(met.sum()) / makespan}
        if setup.slo
        else None,
        "energy": energy(setup, log, makespan, output, both),
        "kv": {
            "num_gpu_blocks": setup.num_gpu_blocks,
            "peak_utilization": float(log["kv_blocks_used"].max()) / setup.num_gpu_blocks,
            "preemptions": 0,
        },
        "utilization": {
            "busy": busy / makespan / setup.replicas,
            "host_gap": float(log["host_s"].sum()) / busy,
        },
        "coverage": {"in_domain_time": setup.in_domain},
    }


def attained(setup: Setup, row: dict[str, np.ndarray]) -> np.ndarray:
    met = np.ones(setup.num_requests, dtype=bool)
    for key, limit in (setup.slo or {}).items():
        if key != "attainment":
            met &= ~(row[key] > limit)
    return met


def energy(
    setup: Setup, log: dict[str, np.ndarray], makespan: float, output: int, both: int
) -> dict[str, Any]:
    keys = [
        "total_j",
        "prefill_j",
        "decode_j",
        "idle_j",
        "mean_power_w",
        "j_per_output_token",
        "j_per_total_token",
    ]
    if setup.power_note:
        return {**dict.fromkeys(keys), "note": setup.power_note}
    joules = log["power_w"] * log["duration_s"]
    prefill = float(joules[log["prefill_tokens"] > 0].sum())
    decode = float(joules.sum()) - prefill
    idle = setup.idle_w * (setup.replicas * makespan - float(log["duration_s"].sum()))
    total = prefill + decode + idle
    return dict(
        zip(keys, [total, prefill, decode, idle, total / makespan, total / output, total / both], strict=True)
    )


def manifest(setup: Setup) -> dict[str, Any]:
    arrivals = {"process": setup.process, "rate_rps": setup.rate_rps or None}
    if setup.process == "closed-loop":
        arrivals = {"process": setup.process, "concurrency": 16}
    engine = {
        "batching": {"policy": "chunked-prefill"},
        "max_num_seqs": setup.max_num_seqs,
        "max_num_batched_tokens": setup.max_num_batched_tokens,
        "block_size": 16,
        "gpu_memory_utilization": 0.9,
        "num_gpu_blocks": None,
    }
    scenario = {
        "schema_version": 1,
        "name": setup.name,
        "seed": setup.seed,
        "model": "opt-1.3b",
        "device": "h200",
        "dtype": "bf16",
        "cost": {"trace": "traces/h200/opt-1.3b-bf16"} if setup.source == "measured" else {"roofline": {}},
        "workload": {"num_requests": setup.num_requests, "arrivals": arrivals},
        "deployment": {
            "num_devices": setup.replicas,
            "replicas_per_device": 1,
            "sharing": "none",
            "tensor_parallel_size": 1,
            "router": {"policy": "round-robin"},
            "engine": engine,
        },
        "slo": setup.slo,
    }
    trace = {
        "trace": "traces/h200/opt-1.3b-bf16",
        "content_hash": "sha256:0123456789abcdef0123456789abcdef",
        "source": "measured",
        "engine": "simslm-engine 0.1.0",
        "device": "NVIDIA H200",
        "date": "2026-01-05",
    }
    return {
        "name": setup.name,
        "command": f"simslm simulate scenarios/{setup.name}.yaml --seed {setup.seed}",
        "scenario": scenario,
        "scenario_path": f"scenarios/{setup.name}.yaml",
        "seed": setup.seed,
        "versions": {"simslm": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "simpy": "4.1.1"},
        "traces": [trace] if setup.source == "measured" else [],
        "cost": {"source": setup.source, "engine": "simslm-engine 0.1.0", "note": ""},
        "model": {
            "name": "opt-1.3b",
            "parameters": 1_315_758_080,
            "weight_bytes": 2_631_516_160,
            "kv_bytes_per_token": 196_608,
        },
        "device": {"name": "h200", "memory_bytes": 151_000_000_000},
        "wall_time_s": 0.83,
        "events": 12_345,
    }


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a run directory for the given changes to :class:`Setup` and returns its path."""

    def make(**changes: Any) -> Path:
        setup = Setup(**changes)
        directory = tmp_path_factory.mktemp("runs") / setup.name
        directory.mkdir()
        tables = simulate(setup)
        for name, table in tables.items():
            pq.write_table(table, directory / f"{name}.parquet")
        summary = summarise(setup, tables["requests"], tables["iterations"])
        (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        (directory / "manifest.json").write_text(json.dumps(manifest(setup)), encoding="utf-8")
        return directory

    return make


@pytest.fixture(scope="session")
def quiet_run(make_run: Callable[..., Path]) -> Path:
    """A run that keeps up with its arrivals and meets its SLO."""
    return make_run(name="quiet")
