"""Named random streams: independent of each other, of the process and of Python's hash seed."""

import os
import subprocess
import sys

import numpy as np
import pytest

from simslm.workload.streams import stream

NAMES = ["arrivals", "prompt_tokens", "output_tokens", "router", "jitter/replica-0", "jitter/replica-1"]


def test_a_stream_depends_on_seed_and_name_alone():
    first = stream(7, "arrivals").random(5)
    stream(7, "router").random(1000)
    assert np.array_equal(first, stream(7, "arrivals").random(5))


def test_streams_differ_by_name_and_by_seed():
    drawn = [tuple(stream(seed, name).random(3)) for seed in (0, 1, 10, 11) for name in NAMES]
    assert len(set(drawn)) == len(drawn)


def test_streams_are_uncorrelated():
    drawn = np.array([stream(0, name).standard_normal(20_000) for name in NAMES])
    off_diagonal = np.corrcoef(drawn) - np.eye(len(NAMES))
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(20_000)


@pytest.mark.slow
def test_streams_are_the_same_under_another_hash_seed():
    code = "from simslm.workload.streams import stream; print(stream(3, 'arrivals').random(4).tolist())"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "12345")
    ]
    assert outputs[0] == outputs[1] == f"{stream(3, 'arrivals').random(4).tolist()}\n"
