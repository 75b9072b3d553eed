"""Runs made of random numbers, as their files would be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from simslm.metrics.definitions import LATENCIES
from simslm.metrics.quantiles import spread
from simslm.metrics.summary import throughput
from simslm.metrics.tally import Tally
from simslm.sim.log import FINISHED


@dataclass
class FakeRun:
    """The tables of a run."""

    requests: dict[str, np.ndarray]
    summary: dict[str, Any]
    manifest: dict[str, Any] = field(default_factory=dict)


def _fates(finished: np.ndarray) -> dict[str, np.ndarray]:
    nothing = np.zeros(len(finished), dtype=int)
    status = np.where(finished, FINISHED, FINISHED + 1)
    names = ("preemptions", "recomputed_tokens", "cached_prompt_tokens")
    return {"status": status, **dict.fromkeys(names, nothing)}


MakeRun = Callable[..., FakeRun]


@pytest.fixture
def make_run() -> MakeRun:
    """``make_run(ttft_s, seed=0, slo=None, **settings)``: requests with these TTFTs, one a second.

    Those with NaN are ``lost``; a ``replay`` arrives at the same times under every seed.
    """

    def make(
        ttft_s, *, seed=0, lengths=None, slo=None, content="abc", lost="rejected", replay=None, **settings
    ) -> FakeRun:
        ttft = np.asarray(ttft_s, dtype=float)
        count = len(ttft)
        output = np.full(count, 5) if lengths is None else np.asarray(lengths)
        tpot = np.where(output > 1, 0.1, np.nan)
        columns = {
            "request_id": np.arange(count, dtype=float),
            "arrival_s": np.arange(count) + 0.001 * (seed if replay is None else 0),
            "prompt_tokens": np.full(count, 10.0),
            "output_tokens": output.astype(float),
            "ttft_s": ttft,
            "tpot_s": tpot,
            "e2e_s": ttft + np.nan_to_num(tpot) * (output - 1),
            "queue_s": ttft / 2,
            "finished": np.isfinite(ttft),
            "rejected": ~np.isfinite(ttft) & (lost == "rejected"),
            "failed": ~np.isfinite(ttft) & (lost == "failed"),
        }
        makespan = float(np.nanmax(columns["arrival_s"] + columns["e2e_s"]))
        good = columns["finished"] & ~(ttft > (slo or np.inf))
        summary = {
            "requests": {
                "arrived": count,
                **{name: int(columns[name].sum()) for name in ("finished", "rejected", "failed")},
            },
            "makespan_s": makespan,
            "throughput": throughput(Tally.of(columns | _fates(columns["finished"])), makespan),
            "slo": {
                "attainment": float(good.mean()) if slo else None,
                "goodput_rps": float(good.sum()) / makespan if slo else None,
            },
            "kv": {"preemptions": 0, "num_gpu_blocks": 100},
            "cost": {"source": "measured"},
        }
        summary |= {
            m.key: spread(columns[m.key][np.isfinite(columns[m.key])]) for m in LATENCIES if m.key in columns
        }
        scenario = {
            "name": "made",
            "seed": seed,
            "cost": {"trace": "../t"},
            "workload": {"num_requests": count} if replay is None else {"replay": replay},
            "slo": {"ttft_s": slo} if slo else None,
            "deployment": settings,
        }
        return FakeRun(
            columns,
            summary,
            {"scenario": scenario, "traces": [{"content_hash": content}], "versions": {"simslm": "1"}},
        )

    return make
