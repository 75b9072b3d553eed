"""Shared fixtures: where the outside data is, and a small scenario."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from support.browser import browser, opened

__all__ = ["browser", "opened"]

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported: kernels run on a CPU

settings.register_profile("simslm", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("simslm")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SIMSLM_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def workloads() -> Path:
    """Public traffic traces in their original formats; not part of this repository."""
    if not (SHARED / "workloads").is_dir():
        pytest.skip(
            f"no public workload files at {SHARED / 'workloads'} (set SIMSLM_SHARED to where they are)"
        )
    return SHARED / "workloads"


@pytest.fixture(scope="session")
def cases() -> Path:
    """Public cases with right answers; not part of this repository."""
    if not (SHARED / "cases").is_dir():
        pytest.skip(f"no public cases at {SHARED / 'cases'} (set SIMSLM_SHARED to where they are)")
    return SHARED / "cases"


@pytest.fixture(scope="session")
def truth() -> Path:
    """Measured serving runs of others; not part of this repository."""
    if not (SHARED / "truth").is_dir():
        pytest.skip(f"no measured runs at {SHARED / 'truth'} (set SIMSLM_SHARED to where they are)")
    return SHARED / "truth"


@pytest.fixture
def small() -> dict:
    """A scenario that runs in milliseconds on the roofline, as a mapping to change and load."""
    return {
        "schema_version": 1,
        "name": "small",
        "model": "opt-1.3b",
        "device": "h200",
        "cost": {"roofline": {}},
        "workload": {
            "num_requests": 50,
            "arrivals": {"process": "poisson", "rate_rps": 20},
            "prompt_tokens": {"dist": "lognormal", "mean": 200, "p95": 600},
            "output_tokens": {"dist": "uniform", "low": 1, "high": 60},
        },
        "slo": {"ttft_s": 0.5, "tpot_s": 0.05},
    }
