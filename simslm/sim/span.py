"""A run of iterations of one unchanged batch, kept as an arithmetic progression of latencies.

While no sequence joins or leaves, every iteration has ``step`` more tokens of context than the one before, and costs a
constant more. The end of the ``j``-th iteration since the batch last changed is then

    origin + (j * first + j (j - 1) / 2 * growth)

whatever jumps the iterations were taken in: jumping over many of them costs no more than one, and leaves the same
bits as stepping through each.
"""

from __future__ import annotations

from math import sqrt


class Span:
    """Some iterations of a progression.

    Attributes:
        origin_s: when the progression began.
        first_s: latency of its first iteration.
        growth_s: how much longer each is than the one before.
        left: iterations the progression can still take, these included, before the slope of the cost changes.
        done: iterations of it before these.
        count: how many these are.
        end_s: when the last of them ends; a shared device may make it later.
        steady: whether what follows may continue the progression.
    """

    __slots__ = ("count", "done", "end_s", "first_s", "growth_s", "left", "origin_s", "steady")

    def __init__(
        self, origin_s: float, first_s: float, growth_s: float, left: int, done: int, count: int
    ) -> None:
        self.origin_s = origin_s
        self.first_s = first_s
        self.growth_s = growth_s
        self.left = left
        self.done = done
        self.count = count
        self.steady = True
        j = done + count
        self.end_s = origin_s + (first_s if j == 1 else j * first_s + (j * (j - 1) // 2) * growth_s)

    def end(self, number: int) -> float:
        """End of iteration ``number`` of these, counted from 1."""
        j = self.done + number
        return self.origin_s + (j * self.first_s + (j * (j - 1) // 2) * self.growth_s)

    def running(self, now: float, *, settled: bool = False) -> int:
        """The number, counted from 1, of the first of these iterations that has not ended before ``now``.

        With ``settled``, an iteration that ends just now has ended.
        """
        passed, growth, half = now - self.origin_s, self.growth_s, self.first_s - self.growth_s / 2
        if growth > 0:
            guess = (sqrt(half * half + 2 * growth * passed) - half) / growth if passed > 0 else 0.0
        else:
            guess = passed / self.first_s
        end, count, number = self.end, self.count, int(guess) + 1 - self.done
        if number < 1:
            number = 1
        elif number > count:
            number = count
        while number > 1 and ((end_s := end(number - 1)) > now or (end_s == now and not settled)):
            number -= 1
        while number < count and ((end_s := end(number)) < now or (end_s == now and settled)):
            number += 1
        return number

    def cut(self, count: int) -> None:
        """Only the first ``count`` of these iterations take place now."""
        self.count = count
        self.end_s = self.end(count)
