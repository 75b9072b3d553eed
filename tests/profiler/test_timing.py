"""Warm-up ends when durations are stationary; host time is part of the latency."""

from profiler.measure.timing import Timing, warm_up


def test_warm_up_lasts_until_durations_are_stationary():
    falling = [2.0**-i for i in range(8)] + [0.001] * 100
    times = iter(falling)
    assert warm_up(lambda: next(times)) == 8 + 2 * 5 - 2
    assert warm_up(lambda: 1.0, limit_s=0.0) == 0


def test_host_time_is_part_of_the_latency():
    assert Timing(latency_s=2.0, host_s=0.5)._asdict() == {"latency_s": 2.0, "host_s": 0.5}
