"""semi-PD's feedback from the SLO to the split."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from pydantic import Field

from simslm.policies.partition import PhaseWindow, Split
from simslm.policies.registry import PolicyOptions, policy


class SloAwareOptions(PolicyOptions):
    window: int = Field(default=400, ge=1, description="requests between two looks at the split")
    step: float = Field(default=0.02, gt=0, le=1, description="smallest change of a part")
    max_steps: int = Field(default=3, ge=1, le=100, description="most steps at a time")
    floor: float = Field(default=0.8, gt=0, le=1, description="smallest part a phase is reduced to")
    tpot_margin: float = Field(
        default=1.1, ge=1, le=10, description="TPOT counts as within its bound if that many times it is"
    )


@policy("partition", "slo-aware", SloAwareOptions)
class SloAware:
    """The phase whose p90 misses its SLO gets more, from its own limit, then from the other's (arXiv:2504.19867).

    The dynamic partitioning algorithm of semi-PD ("SLO-aware dynamic partitioning"), with the constants of the code its
    authors published. Every ``window`` requests the 90th percentiles of TTFT and TPOT are held to their bounds.
    Where both are met, nothing changes; where both are missed, both phases may use the whole device (in their code only
    if neither does yet); where one is missed, its part grows by the fewest steps that should meet the bound or, when it
    is whole already, the other's shrinks by the most that should keep its own bound. What a part does to a latency is
    predicted by ratios of the curves below, fitted by the authors to their model on their device: here they steer, and
    the simulated device answers.
    """

    needs_slo = True

    def __init__(self, options: SloAwareOptions) -> None:
        self.window = options.window
        self._step, self._max_steps = options.step, options.max_steps
        self._floor, self._margin = options.floor, options.tpot_margin

    def split(self, seen: PhaseWindow) -> Split:
        ttft_slo_s, tpot_slo_s = seen.ttft_slo_s, seen.tpot_slo_s
        if ttft_slo_s is None or tpot_slo_s is None:
            return seen.split
        prefill, decode = seen.split
        tpot_s, (waiting_s, prefill_s) = _p90(seen.tpot_s), _p90_first_token(seen)
        slow_decode = tpot_s * self._margin > tpot_slo_s
        slow_prefill = waiting_s + prefill_s > ttft_slo_s
        if slow_decode and slow_prefill:
            return Split(1.0, 1.0)

        def keeps_ttft(part: float) -> bool:
            longer = waiting_s * _waiting(part) / _waiting(prefill)
            return longer + prefill_s * _prefill(part) / _prefill(prefill) <= ttft_slo_s

        def keeps_tpot(part: float) -> bool:
            return tpot_s * _decode(part) / _decode(decode) <= tpot_slo_s

        if slow_decode and decode < 1:
            return Split(prefill, self._grown(decode, keeps_tpot))
        if slow_decode:
            return Split(self._shrunk(prefill, keeps_ttft), decode)
        if slow_prefill and prefill < 1:
            return Split(self._grown(prefill, keeps_ttft), decode)
        if slow_prefill:
            return Split(prefill, self._shrunk(decode, keeps_tpot))
        return seen.split

    def _grown(self, part: float, keeps: Callable[[float], bool]) -> float:
        """The first larger part that should meet the bound, or the largest within reach."""
        for _ in range(self._max_steps):
            # Rounded: ten steps of 0.1 are 0.9999999999999999, which is not the whole device.
            part = min(round(part + self._step, 9), 1.0)
            if part == 1.0 or keeps(part):
                break
        return part

    def _shrunk(self, part: float, keeps: Callable[[float], bool]) -> float:
        """The last smaller part within reach that should still meet the bound."""
        for _ in range(self._max_steps):
            smaller = round(part - self._step, 9)
            if smaller < self._floor or not keeps(smaller):
                break
            part = smaller
        return part


def _decode(part: float) -> float:
    """TPOT with a part of the device, over TPOT with all of it."""
    return 1.0 if part == 1 else 0.6099164272415375 / part + 0.41530605763705736


def _prefill(part: float) -> float:
    """Prefill latency with a part of the device, over that with all of it."""
    return 1.0 if part == 1 else 0.732435017003385 / part + 0.3185253290850649


def _waiting(part: float) -> float:
    """Queueing time with a part of the device, over that with all of it."""
    if part == 1:
        return 1.0
    return 1.4046465674985547 / part**2 - 3.15935463280878 / part + 2.8734660485396604


def _p90(values: tuple[float, ...]) -> float:
    """The 90th percentile, an element; 0 of nothing."""
    return sorted(values)[ceil(0.9 * len(values)) - 1] if values else 0.0


def _p90_first_token(seen: PhaseWindow) -> tuple[float, float]:
    """The two parts of the TTFT at its 90th percentile; zeros when no first token came."""
    # The percentile is of the TTFT, the sum; its two parts are those of the one request that stands there.
    both = sorted(zip(seen.waiting_s, seen.prefill_s, strict=True), key=sum)
    return both[ceil(0.9 * len(both)) - 1] if both else (0.0, 0.0)
