"""Exploring around a scenario: which configurations nobody should do without, and which cannot be.

``simslm.search(scenario)`` is this room itself, called: the name belongs to both.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simslm.scenario.schema import Scenario
    from simslm.search.run import SearchResult

__all__ = ["SearchResult"]


class _Room(ModuleType):
    """A module that can be called."""

    def __call__(self, scenario: Scenario, **options: Any) -> SearchResult:
        """See :func:`simslm.search.run.search`."""
        from simslm.search.run import search

        return search(scenario, **options)


sys.modules[__name__].__class__ = _Room


def __getattr__(name: str) -> Any:
    if name != "SearchResult":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from simslm.search.run import SearchResult

    return SearchResult
