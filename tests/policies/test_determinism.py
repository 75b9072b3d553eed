"""The same scenario and seed give the same bytes, in any process and under any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PROGRAM = """
import hashlib, json
from dataclasses import replace
import numpy as np
from support.invariants import simulate
from support.scenarios import Choice
from support.synthetic import Lists, deployment
from simslm.policies.registry import registered

rng = np.random.default_rng(11)
digest = hashlib.sha256()
for entry in registered():
    requests = Lists.of(np.cumsum(rng.exponential(0.004, 120)), *rng.integers(1, 90, (2, 120)))
    requests.session_id, requests.priority = rng.integers(-1, 9, 120), rng.integers(0, 3, 120)
    requests.patience_s = rng.exponential(2.0, 120)
    requests.unit_tokens = 16
    requests.units = [tuple(range(i % 4 * 100, i % 4 * 100 - (-n // 16))) for i, n in enumerate(requests.prompt_tokens)]
    names = {"batching": "chunked-prefill", "queueing": "fcfs", "routing": "round-robin"}
    if entry.kind in names:
        names[entry.kind] = entry.name
    names["router"] = names.pop("routing")
    whole = entry.name in ("static", "orca")
    setting = deployment(**names, replicas=4, replicas_per_device=2, num_gpu_blocks=60, prefix_caching=not whole)
    if entry.kind == "gateway":
        setting = replace(setting, gateway=Choice(entry.kind, entry.name).make)
    if entry.kind == "group-routing":
        first = setting.groups[0]
        groups = (first, replace(first, name="other", devices=(5,), share=0.5))
        setting = replace(setting, groups=groups, group_router=Choice(entry.kind, entry.name).make)
    result = simulate(requests, setting)
    digest.update(json.dumps(result.summary).encode())
    for column in result.request_columns.values():
        digest.update(column.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_every_policy_gives_the_same_bytes_under_every_hash_seed():
    digests = set()
    for hash_seed in ("0", "1", "4242"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONPATH=str(TESTS))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1
