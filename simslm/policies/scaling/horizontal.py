"""The horizontal autoscaler of Kubernetes."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Literal

from pydantic import Field

from simslm.policies.fleet import SERVING, GroupView
from simslm.policies.registry import policy
from simslm.policies.scaling import ScalingOptions


class HorizontalOptions(ScalingOptions):
    metric: Literal["outstanding", "queued", "kv_utilization"] = Field(
        default="outstanding",
        description="what is held against the target, per replica: requests waiting or running, those that wait, or "
        "the share of KV blocks in use",
    )
    target: float = Field(
        default=32.0, gt=0, le=1e6, description="value of the metric that each replica should have"
    )
    tolerance: float = Field(
        default=0.1, ge=0, lt=1, description="relative distance from the target within which nothing changes"
    )
    stabilization_s: float = Field(
        default=300.0, ge=0, le=1e6, description="fewer replicas only if that was enough for so long, s"
    )


@policy("scaling", "horizontal", HorizontalOptions)
class Horizontal:
    """ceil(replicas x metric / target), lowered with a delay (Kubernetes HorizontalPodAutoscaler, algorithm details).

    The metric is that of all serving replicas and of the requests that wait for one, divided by the replicas that
    serve or are coming: those that start count with nothing, as pods do that are not ready. Within ``tolerance`` of the
    target nothing changes. For fewer replicas the largest answer of the last ``stabilization_s`` seconds counts.
    """

    def __init__(self, options: HorizontalOptions) -> None:
        self._metric, self._target = options.metric, options.target
        self._tolerance, self._stabilization_s = options.tolerance, options.stabilization_s
        self._said: deque[tuple[float, int]] = deque()

    def wanted(self, seen: GroupView) -> int:
        current = max(seen.coming, 1)
        total = sum(float(getattr(member, self._metric)) for member in seen.of(SERVING))
        if self._metric != "kv_utilization":
            total += seen.held
        ratio = total / (current * self._target)
        count = current if abs(ratio - 1) <= self._tolerance else ceil(current * ratio)
        self._said.append((seen.now_s, count))
        while self._said[0][0] < seen.now_s - self._stabilization_s:
            self._said.popleft()
        return max(count, min(current, max(said for _, said in self._said)))
