"""Arrivals of many clients, each a renewal process of its own rate and gaps, merged in time.

That is how ServeGen composes traffic (arXiv:2505.09999, section 5): a few clients send most requests, and the
burstiness of the whole is that of those few.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simslm.scenario.arrivals import Client, ClientArrivals
from simslm.workload.curves import curve
from simslm.workload.gaps import first_gap, running_sums, unit_gaps

Merged = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""The next arrivals: times in seconds, and the index of the entry that sent each."""


class _One:
    """A client's own arrivals, drawn as far as they are needed; it has always been sending.

    Were all clients to begin at time 0, the short gaps of bursty ones would pile up there.
    """

    __slots__ = ("_ahead_s", "_points", "_rate_rps", "_times_at")

    def __init__(self, rate_rps: float, client: Client, rng: np.random.Generator) -> None:
        self._rate_rps = rate_rps
        begin = first_gap(client.gaps, rng)
        self._points = running_sums(unit_gaps(client.gaps, rng), begin)
        self._times_at = curve(rate_rps, client.shape, client.step_s)
        self._ahead_s = self._times_at(np.array([begin]))

    def before(self, time_s: float) -> np.ndarray:
        """The arrivals before a time that have not been given out yet."""
        while (last_s := self._ahead_s[-1]) < time_s:
            count = int(min((time_s - last_s) * self._rate_rps, 1e6)) + 1
            self._ahead_s = np.concatenate((self._ahead_s, self._times_at(self._points(count))))
        found, self._ahead_s = np.split(self._ahead_s, [np.searchsorted(self._ahead_s, time_s)])
        return found


def client_rates(client: Client) -> np.ndarray:
    """The parts of an entry's share that its clients send: the ``k``-th in proportion to ``k ** -skew``."""
    parts = np.arange(1, client.count + 1, dtype=float) ** -client.skew
    return client.share * parts / parts.sum()


def merged_clients(arrivals: ClientArrivals, rng: np.random.Generator) -> Merged:
    """The arrivals of all clients in order of time; ties go to the client that is listed first.

    Each client draws from a stream of its own, so that one more at the end of the list moves no other's pattern,
    only its rate.
    """
    rates = [client_rates(client) for client in arrivals.clients]
    total = sum(float(each.sum()) for each in rates)
    ones, entries = [], []
    for index, (client, parts) in enumerate(zip(arrivals.clients, rates, strict=True)):
        for part in parts:
            ones.append(_One(arrivals.rate_rps * float(part) / total, client, rng.spawn(1)[0]))
            entries.append(index)
    until_s, times_s, senders = 0.0, np.zeros(0), np.zeros(0, dtype=np.int64)

    def take(count: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal until_s, times_s, senders
        while len(times_s) < count:
            until_s += (count - len(times_s)) / arrivals.rate_rps
            found = [one.before(until_s) for one in ones]
            new_s, new = np.concatenate(found), np.repeat(entries, [len(each) for each in found])
            order = np.argsort(new_s, kind="stable")
            times_s = np.concatenate((times_s, new_s[order]))
            senders = np.concatenate((senders, new[order]))
        given = times_s[:count], senders[:count]
        times_s, senders = times_s[count:], senders[count:]
        return given

    return take
