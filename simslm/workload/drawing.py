"""Draws the requests of a generated workload piece by piece; all pieces together are the workload drawn at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simslm.errors import ScenarioError
from simslm.scenario.arrivals import ClientArrivals
from simslm.scenario.lengths import Listed, Mixture
from simslm.scenario.workload import PREFIX_UNIT_TOKENS, Workload
from simslm.workload.arrivals import Arrived
from simslm.workload.lengths import length_draws, turn
from simslm.workload.prefixes import shared_prefixes
from simslm.workload.streams import Streams

Pairs = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""The next prompt and output lengths: as many as asked for."""

_LEAST = 2.0**-54
"""Uniform numbers are held above it, so that the normal ones made of them are finite."""


class Drawing:
    """Columns of a generated workload, for arrivals that are handed over in order.

    Args:
        workload: the scenario's, with arrivals.
        total: requests in all.
        streams: of the scenario's seed.
        base_dir: what paths are relative to.

    Raises:
        ScenarioError: when lengths cannot be drawn as asked for.
    """

    def __init__(self, workload: Workload, total: int, streams: Streams, base_dir: Path) -> None:
        self._workload = workload
        self._streams = streams
        self._pairs = [
            _pairs(workload, prompt, output, total, streams, mark, base_dir)
            for prompt, output, mark in _lengths(workload)
        ]

    def columns(self, arrived: Arrived) -> dict[str, Any]:
        """Arrivals, lengths and prefixes of the next requests."""
        prompts, outputs = self._drawn(arrived)
        columns: dict[str, Any] = {
            "arrival_s": arrived.times_s,
            "prompt_tokens": prompts,
            "output_tokens": outputs,
        }
        if self._workload.prefixes is not None:
            columns["units"] = shared_prefixes(self._workload.prefixes, prompts, self._streams["prefixes"])
            columns["unit_tokens"] = PREFIX_UNIT_TOKENS
        return columns

    def _drawn(self, arrived: Arrived) -> tuple[np.ndarray, np.ndarray]:
        count = len(arrived.times_s)
        if arrived.client is None:
            return self._pairs[0](count)
        prompts, outputs = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        for index, pairs in enumerate(self._pairs):
            mine = arrived.client == index
            prompts[mine], outputs[mine] = pairs(int(mine.sum()))
        return prompts, outputs


def _lengths(workload: Workload) -> list[tuple[Any, Any, str]]:
    """Prompts, outputs and what marks the streams of each client; of all requests where there are no clients."""
    whole = workload.prompt_tokens, workload.output_tokens
    if not isinstance(workload.arrivals, ClientArrivals):
        return [(*whole, "")]
    return [
        (client.prompt_tokens or whole[0], client.output_tokens or whole[1], f"/client-{index}")
        for index, client in enumerate(workload.arrivals.clients)
    ]


def _pairs(
    workload: Workload, prompt: Any, output: Any, total: int, streams: Streams, mark: str, base_dir: Path
) -> Pairs:
    """What draws the lengths of prompts and outputs, together where they are correlated."""
    names = ("prompt_tokens", "output_tokens")
    if workload.correlation:
        return _correlated(workload.correlation, prompt, output, [streams[n + mark] for n in names], base_dir)
    draws = [
        _named(name, lambda each=each, name=name: length_draws(each, total, streams[name + mark], base_dir))
        for name, each in zip(names, (prompt, output), strict=True)
    ]
    return lambda count: (draws[0](count), draws[1](count))


def _correlated(
    rank_correlation: float, prompt: Any, output: Any, rngs: list[np.random.Generator], base_dir: Path
) -> Pairs:
    """Lengths of their own distributions, joined by a Gaussian copula.

    Normals of correlation ``r`` have ranks of correlation ``(6 / pi) arcsin(r / 2)`` (Kruskal 1958, section 5): so
    ``r = 2 sin(pi s / 6)`` for a rank correlation ``s``. Prompts are those drawn without correlation.
    """
    from scipy.special import ndtr, ndtri

    turns = []
    for name, each in (("prompt_tokens", prompt), ("output_tokens", output)):
        if isinstance(each, Mixture | Listed):
            raise ScenarioError(
                f"workload.{name}: {each.dist} lengths cannot be correlated",
                remedy="give them as quantiles, or leave correlation out",
            )
        turns.append(_named(name, lambda each=each: turn(each, base_dir)))
    normal = 2 * math.sin(math.pi * rank_correlation / 6)
    rest = math.sqrt(max(1 - normal**2, 0.0))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = (np.maximum(rng.random(count), _LEAST) for rng in rngs)
        return turns[0](first), turns[1](ndtr(normal * ndtri(first) + rest * ndtri(second)))

    return draw


def _named(name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` gives; its errors name the key they are about."""
    try:
        return make()
    except ScenarioError as error:
        message = f"workload.{name}: {error.message}"
        raise ScenarioError(message, where=error.where, remedy=error.remedy) from None
