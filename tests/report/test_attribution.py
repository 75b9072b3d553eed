"""Where the time of the replicas went."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simslm.report.attribution import time_split
from simslm.report.tables import read_run


def iterations(**columns: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(values, dtype=float) for name, values in columns.items()}


def test_pure_iterations_belong_to_their_phase():
    split = time_split(
        iterations(
            duration_s=[1, 2, 4], host_s=[0.5, 0.5, 1], decode_seqs=[0, 3, 3], prefill_tokens=[9, 0, 0]
        ),
        2,
        10,
    )
    assert (split.host_s, split.prefill_s, split.decode_s, split.idle_s) == (2.0, 0.5, 4.5, 13.0)
    assert split.total_s == 20.0


def test_a_mixed_iteration_gives_decode_what_it_takes_alone():
    log = iterations(duration_s=[1, 3, 7], host_s=[0, 0, 0], decode_seqs=[2, 4, 3], prefill_tokens=[0, 0, 50])
    split = time_split(log, 1, 11)
    assert split.decode_s == pytest.approx(1 + 3 + 2)
    assert split.prefill_s == pytest.approx(5)


def test_a_mixed_iteration_never_gives_decode_more_than_it_lasted():
    log = iterations(duration_s=[5, 2], host_s=[0, 0], decode_seqs=[2, 2], prefill_tokens=[0, 50])
    assert time_split(log, 1, 7).prefill_s == 0.0


def test_without_a_decode_only_iteration_tokens_share_the_time():
    log = iterations(duration_s=[4], host_s=[0], decode_seqs=[10], prefill_tokens=[30])
    split = time_split(log, 1, 4)
    assert (split.decode_s, split.prefill_s) == (1.0, 3.0)


def test_unknown_host_time_stays_unknown():
    log = iterations(duration_s=[4], host_s=[np.nan], decode_seqs=[10], prefill_tokens=[0])
    split = time_split(log, 1, 5)
    assert split.host_s is None
    assert [name for name, _ in split.parts()] == ["prefill", "decode", "idle"]
    assert split.busy_s == 4.0


def test_idle_time_of_a_rounding_error_is_none():
    log = iterations(duration_s=[0.1, 0.2], host_s=[0, 0], decode_seqs=[1, 1], prefill_tokens=[0, 0])
    assert time_split(log, 1, 0.30000000000000010).idle_s == 0.0


def test_the_split_recovers_the_costs_of_a_run(make_run: Callable[..., Path]):
    """The run's iterations cost 1.5e-5 s a prompt token, known here and not to the rules."""
    run = read_run(make_run(name="split", rate_rps=40, mean_prompt=800))
    split = time_split(run.iterations, 1, run.summary["makespan_s"])
    paid = 1.5e-5 * float(run.iterations["prefill_tokens"].sum())
    assert split.prefill_s == pytest.approx(paid, rel=0.1)
