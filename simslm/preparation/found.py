"""What was looked up for one scenario, kept for the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Found:
    """Look-ups that several scenarios share: models, devices, costs, requests.

    All of it is read only, so scenarios that share it give the same results as each by itself. A file that changes
    meanwhile is not read again.

    Args:
        most: entries of a kind that are kept, those used last; of workloads, which may be large, four.
    """

    def __init__(self, most: int = 32) -> None:
        self._most = most
        self._kept: dict[str, OrderedDict[tuple[Any, ...], Any]] = {}

    def get(self, kind: str, key: tuple[Any, ...], look_up: Callable[[], T]) -> T:
        """The result of ``look_up``, or its earlier result for the same kind and key."""
        kept = self._kept.setdefault(kind, OrderedDict())
        if key not in kept:
            kept[key] = look_up()
            if len(kept) > (4 if kind == "requests" else self._most):
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]
