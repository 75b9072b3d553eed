"""Exploring around a scenario: which configurations are best, and which are not possible.

``simslm.search`` names both this package and the function, so the package itself can be called.
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
