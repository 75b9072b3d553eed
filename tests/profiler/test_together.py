"""Several replicas that serve one workload together: which serves which request, right tokens, how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing import Pipe

import numpy as np
import pytest
from support.synthetic import Lists

from profiler.measure.company import Company
from profiler.measure.meters import NoMeter, ReplayMeter
from profiler.replicas import running
from profiler.serving import together
from profiler.serving.clock import WallClock
from profiler.serving.live import LiveEngine
from profiler.serving.replica import Limits
from profiler.serving.stage import served_alike
from profiler.serving.together import Heard, open_replicas
from simslm.errors import DeviceError, InfeasibleError

LIMITS = Limits(4, 24)
BLOCKS = 30


def asked(count: int, gap_s: float = 0.002):
    """Requests, and who serves them: of three, two go to the second replica."""
    rng = np.random.default_rng(1)
    prompts, outputs = rng.integers(2, 21, (2, count))
    columns = vars(Lists.of(gap_s * np.arange(count), prompts, outputs))
    return columns | {"replica": np.minimum(np.arange(count) % 3, 1)}


def opened(llama, sharing, **options):
    options = {"replicas": 2, "threads": 1, "meter": NoMeter("none")} | options
    return open_replicas(llama, "fp32", "cpu", BLOCKS, 4, 5, sharing=sharing, **options)


def test_processes_serve_workload_after_workload_as_one_engine_would(llama):
    columns = asked(18)
    alone = LiveEngine.open(llama, "fp32", "cpu", BLOCKS, 4, 5, NoMeter("none"))
    expected = alone.serve(columns, LIMITS, served_alike())
    with opened(llama, "time-slice", meter=ReplayMeter([1.0, 3.5, 7.0, 11.0])) as replicas:
        pids = {process.pid for process in multiprocessing.active_children()}
        served = [replicas.serve(columns, LIMITS, served_alike()) for _ in range(2)]
        assert {process.pid for process in multiprocessing.active_children()} == pids
        assert len(pids) == 2
    assert [each.energy_j for each in served] == [2.5, 4.0]
    for each in served:
        _holds(each, columns)
        for output, right in zip(each.outputs, expected.outputs, strict=True):
            assert output.tolist() == right.tolist()
    assert not multiprocessing.active_children()


def _holds(served, columns):
    """Every request is served once, by the replica it was given to, in real time and from one common moment on."""
    requests, iterations = served.requests, served.iterations
    assert requests["request_id"].tolist() == list(range(len(columns["arrival_s"])))
    for name in ("replica", "arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(requests[name], columns[name])
    assert [len(output) for output in served.outputs] == columns["output_tokens"].tolist()
    assert len(served.gaps_s) == (columns["output_tokens"] - 1).sum()
    assert (requests["arrival_s"] <= requests["first_scheduled_s"]).all()
    assert (requests["first_token_s"] <= requests["finish_s"]).all()
    for number in (0, 1):
        mine, steps = requests["replica"] == number, iterations["replica"] == number
        assert iterations["prefill_tokens"][steps].sum() == columns["prompt_tokens"][mine].sum()
        np.testing.assert_allclose(
            iterations["start_s"][steps].min(), requests["first_scheduled_s"][mine].min()
        )
        ends = (iterations["start_s"] + iterations["duration_s"])[steps]
        assert (iterations["start_s"][steps][1:] >= ends[:-1]).all()
        assert ends.max() >= requests["finish_s"][mine].max()


@pytest.mark.parametrize("given", [[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]])
def test_threads_serve_too_and_a_replica_may_have_nothing_to_do(llama, given):
    columns = asked(5) | {"replica": np.array(given)}
    with opened(llama, "streams") as replicas:
        replicas.warm(Limits(1, 1), 8)
        served = replicas.serve(columns, LIMITS, served_alike())
        described = replicas.describe()
    _, first = np.unique(served.iterations["replica"], return_index=True)
    assert served.requests["replica"].tolist() == given
    assert len(first) == len(set(given))
    assert (described["replicas"], described["sharing"], len(described["warmup"])) == (2, "streams", 2)
    assert min(described["warmup"]) > 2
    assert (described["meter"], described["power_note"]) == (NoMeter("none").name, "none")


def test_a_replica_that_is_killed_ends_the_others_with_an_error_that_says_so(llama):
    """It is noticed while others serve requests that come for a minute, and no process is left."""
    victims = []

    def kill() -> bool:
        if not victims:
            victims.append(multiprocessing.active_children()[-1])
            os.kill(victims[0].pid, signal.SIGKILL)
        return False

    with opened(llama, "time-slice") as replicas:
        began = time.perf_counter()
        with pytest.raises(DeviceError, match="a replica ended before its time; use fewer replicas"):
            replicas.serve(asked(600, 0.1), LIMITS, served_alike(), kill)
    assert time.perf_counter() - began < 5
    assert not multiprocessing.active_children()


def test_being_told_to_stop_abandons_the_run_in_all_replicas(llama):
    calls, began = [], time.perf_counter()
    with pytest.raises(KeyboardInterrupt), opened(llama, "streams") as replicas:
        replicas.serve(
            asked(600, 0.1), LIMITS, served_alike(), lambda: len(calls) > 2 or calls.append(1) is not None
        )
    assert len(calls) == 3
    assert time.perf_counter() - began < 5


def test_all_replicas_begin_at_one_moment_that_none_is_late_for(llama, monkeypatch):
    told = []

    def clock(origin_s):
        told.append((origin_s, time.perf_counter()))
        return WallClock(origin_s)

    monkeypatch.setattr(together, "WallClock", clock)
    with opened(llama, "streams") as replicas:
        served = replicas.serve(asked(4), LIMITS, served_alike())
    ((first_s, heard_s), (second_s, also_s)) = told
    assert first_s == second_s
    assert max(heard_s, also_s) < first_s
    assert served.requests["first_scheduled_s"].min() >= 0.0


def test_a_clock_is_less_than_0_before_it_begins():
    begin_s = time.perf_counter() + 0.02
    clock = WallClock(begin_s)
    assert -0.02 <= clock.now() < 0.0
    clock.wait_until(0.0)
    assert time.perf_counter() >= begin_s


def test_what_goes_wrong_in_a_replica_is_said(llama, monkeypatch):
    monkeypatch.setattr(together.LiveEngine, "ready", lambda *_: 1 / 0)
    with (
        pytest.raises(DeviceError, match="a replica failed: division by zero"),
        opened(llama, "streams") as replicas,
    ):
        replicas.serve(asked(3), LIMITS, served_alike())


def test_replicas_that_do_not_fit_beside_each_other_are_refused_before_any_is_started(llama, monkeypatch):
    monkeypatch.setattr(together, "running", lambda *_: pytest.fail("started"))
    with (
        pytest.raises(InfeasibleError, match="are to be allocated by each replica, but"),
        open_replicas(llama, "fp32", "cpu", 10**12, replicas=2, sharing="streams"),
    ):
        pass


def test_a_replica_hears_that_it_is_spoken_to_and_that_the_other_end_has_gone():
    ours, theirs = Pipe()
    assert not Heard(theirs)()
    ours.send("stop")
    heard = Heard(theirs)
    assert heard()
    assert theirs.recv() == "stop"
    assert not heard()  # it looks only so often
    ours.close()
    assert Heard(theirs)()


def test_processes_do_not_hear_control_c():
    """A terminal sends it to all; the process that started them ends them."""
    with running("time-slice", [dict], "cpu", 1) as (replica,):
        (process,) = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        replica.tell(_double)
        assert replica.answer() == {"twice": 2}


def _double(engine, orders):
    del orders
    return engine | {"twice": 2}


def test_processor_time_of_replicas_is_not_that_of_others(monkeypatch):
    seconds = iter([(10.0, 4.0), (16.0, 5.0)])
    monkeypatch.setattr("profiler.measure.company._seconds", lambda: next(seconds))
    monkeypatch.setattr("profiler.measure.company.os.cpu_count", lambda: 2)
    clock = iter([0.0, 5.0])
    monkeypatch.setattr("profiler.measure.company.time.perf_counter", lambda: next(clock))
    assert Company().share(3.0) == pytest.approx((6 - 1 - 3) / 10)
