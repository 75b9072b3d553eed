"""What was looked up for one scenario, kept for the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Found:
    """What was looked up for one scenario and is the same for the next: models, devices, costs, requests.

    All of it is read only, so that scenarios that share it give the same results as each by itself. Files that
    change meanwhile are not read again.

    Args:
        most: things of a kind that are kept, those used last; of the requests, which may be many, four.
    """

    def __init__(self, most: int = 32) -> None:
        self._most = most
        self._kept: dict[str, OrderedDict[tuple[Any, ...], Any]] = {}

    def get(self, kind: str, key: tuple[Any, ...], look_up: Callable[[], T]) -> T:
        """What ``look_up`` gives, or gave before for the same kind and key."""
        kept = self._kept.setdefault(kind, OrderedDict())
        if key not in kept:
            kept[key] = look_up()
            if len(kept) > (4 if kind == "requests" else self._most):
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]
